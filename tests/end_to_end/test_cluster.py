"""Data stages over the workers of a Dask scheduler: real schedulers and workers, one of them killed at work."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from genai_core.config.data import CleanConfig, CollectConfig, StandardLibrarySource
from genai_core.context import Context, LogReporter, Mapper, serial
from genai_core.data.shards import files as shard_files
from genai_core.data.shards.files import shards_of
from genai_core.errors import InputError
from genai_core.stages import clean, collect
from tasks.placement import cluster
from tasks.placement.cluster import DaskCluster
from tests.end_to_end.conftest import Home, states
from tests.end_to_end.helpers import api_of, clean_environment, free_port, processes_in, wait_for

pytest.importorskip("distributed", reason="needs Dask: pip install '.[dask]'")
pytestmark = [pytest.mark.slow, pytest.mark.heavy]

DATA_STAGES = ("collect", "clean", "tokenize")


@dataclass
class Dask:
    """A scheduler and its workers, each a process that a test can kill."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> "Dask":
        self._run("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-show")

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, 60)
        return self

    def add_worker(self) -> "subprocess.Popen[bytes]":
        return self._run("worker", self.address, "--nthreads", "1", "--local-directory", str(self.folder))

    def _run(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "dask.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "dask", *arguments, "--no-dashboard"], stdout=log,
                                       stderr=log, env=clean_environment(), cwd=Path(__file__).parents[2],
                                       start_new_session=True)
        self.processes.append(process)
        return process

    def kill(self) -> None:
        for process in self.processes:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """A worker with the nanny that would start it again, as the loss of a machine does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    (tmp_path / "dask").mkdir()
    dask = Dask(tmp_path / "dask").start()
    yield dask
    dask.kill()


LIBRARY = CollectConfig(sources={
    "library": StandardLibrarySource(kind="standard_library", licence="PSF-2.0", limit=150)})


def collect_library(out_dir: Path, mapper: Mapper) -> dict[str, bytes]:
    out_dir.mkdir(exist_ok=True)
    collect.run(LIBRARY, out_dir=out_dir, context=Context(out_dir, map=mapper))
    return bytes_of(out_dir)


def clean_collected(collected: Path, out_dir: Path, mapper: Mapper, killer: Callable[[], None]) -> dict[str, bytes]:
    class Kills(LogReporter):
        def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
            killer()

    out_dir.mkdir(exist_ok=True)
    clean.run(CleanConfig(), collected=collected, out_dir=out_dir, context=Context(out_dir, Kills(), map=mapper))
    return bytes_of(out_dir)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_two_workers_write_what_one_process_writes_and_leave_nothing_behind(dask, prefect, tmp_path):
    more = {"PREFECT_API_URL": api_of(prefect)}
    alone, together = Home(tmp_path / "alone", more), Home(tmp_path / "together", more)
    for home, settings in ((alone, ("runtime.workers=1",)), (together, (f"runtime.data_cluster={dask.address}",))):
        home.root.mkdir()
        if home is together:
            dask.add_worker()
            dask.add_worker()
        done = home.run(*settings, until="tokenize")
        assert [done[stage] for stage in DATA_STAGES] == ["Completed"] * len(DATA_STAGES)
        assert not processes_in(home.root)
        assert not list((home.root / ".genai/scratch").iterdir())
    assert alone.digests() == together.digests()
    from distributed import Client
    with Client(dask.address, set_as_default=False) as client:
        assert len(client.nthreads()) == 2, "the workers are the team's, and stay"
        assert not any(client.processing().values()), "nothing is still worked on"


def test_a_worker_killed_in_mid_clean_changes_no_byte(dask, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_files, "SHARD_CHARACTERS", 100_000)
    collect_library(tmp_path / "collected", serial)
    assert len(shards_of(tmp_path / "collected", "documents")) > 8
    expected = clean_collected(tmp_path / "collected", tmp_path / "serial", serial, lambda: None)
    victim, _ = dask.add_worker(), dask.add_worker()
    (tmp_path / "cluster").mkdir()
    with DaskCluster(dask.address, "genai_core.stages.clean", tmp_path / "cluster") as mapper:
        wait_for(lambda: two_workers(dask), 60)
        files = clean_collected(tmp_path / "collected", tmp_path / "cluster", mapper, lambda: kill(victim))
    assert victim.returncode == -signal.SIGKILL
    assert files == expected


def two_workers(dask: Dask) -> bool:
    from distributed import Client
    with Client(dask.address, set_as_default=False) as client:
        return len(client.nthreads()) == 2


def test_a_source_is_collected_again_after_its_only_worker_was_killed(dask, tmp_path):
    """Nothing of the first attempt is left, and the stage waits for a worker to come."""
    expected = collect_library(tmp_path / "serial", serial)
    victim = dask.add_worker()
    out_dir = tmp_path / "cluster"
    out_dir.mkdir()
    found: dict[str, bytes] = {}

    def work() -> None:
        with DaskCluster(dask.address, "genai_core.stages.collect", out_dir) as mapper:
            found.update(collect_library(out_dir, mapper))

    stage = threading.Thread(target=work)
    stage.start()
    wait_for(lambda: list(out_dir.glob("scratch-*/*")), 60)      # it is at work on the source
    kill(victim)
    assert list(out_dir.glob("scratch-*/*")), "what a killed worker leaves"
    dask.add_worker()
    stage.join(100)
    assert found == expected


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_shard_that_ends_every_worker_ends_the_stage_with_one_line(dask, tmp_path):
    dask.add_worker()
    with (DaskCluster(dask.address, "genai_core.stages.clean", tmp_path) as mapper,
          pytest.raises(InputError, match=f"a shard ended 4 workers of {dask.address}, perhaps for lack of memory")):
        list(mapper(die, [1]))


def fail(number: int) -> int:
    raise InputError(f"number {number} is wrong")


def test_errors_come_back_answers_come_in_order_and_items_are_drawn_as_needed(dask, tmp_path):
    dask.add_worker()
    drawn = []
    with DaskCluster(dask.address, "genai_core.stages.clean", tmp_path) as mapper:
        assert list(mapper(abs, range(-20, 0))) == list(range(20, 0, -1))
        with pytest.raises(InputError, match="number 3 is wrong"):
            list(mapper(fail, [3]))
        answers = mapper(abs, (drawn.append(number) or number for number in range(1000)))
        assert next(answers) == 0
        assert len(drawn) < 10


def test_a_worker_without_the_scratch_folder_or_with_other_code_is_told(dask, tmp_path, monkeypatch):
    dask.add_worker()
    with (DaskCluster(dask.address, "genai_core.stages.clean", tmp_path / "elsewhere") as mapper,
          pytest.raises(InputError, match=f"worker tcp://.* does not see {tmp_path}/elsewhere; workspace and workers")):
        list(mapper(abs, [1]))
    monkeypatch.setattr(cluster, "code_digest", lambda core: "of another commit")
    with (DaskCluster(dask.address, "genai_core.stages.clean", tmp_path) as mapper,
          pytest.raises(InputError, match=r"has other code of genai_core\.stages\.clean; bring it to the same commit")):
        list(mapper(abs, [1]))


def test_a_scheduler_that_goes_and_one_without_workers_are_told(dask, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 1)
    with (DaskCluster(dask.address, "genai_core.stages.clean", tmp_path) as mapper,
          pytest.raises(InputError, match="has no worker; start some with `dask worker tcp://")):
        list(mapper(abs, [1]))
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 60)
    dask.add_worker()
    with DaskCluster(dask.address, "genai_core.stages.clean", tmp_path) as mapper:
        assert list(mapper(abs, [-1])) == [1]
        threading.Timer(2, lambda: kill(dask.processes[0])).start()
        with pytest.raises(InputError, match=f"the scheduler at {dask.address} is gone"):
            list(mapper(time.sleep, [30, 30]))


WAITING = """
import sys, time
from pathlib import Path
from tasks.placement.cluster import DaskCluster
with DaskCluster(sys.argv[1], "genai_core.stages.clean", Path(sys.argv[2])) as mapper:
    list(mapper(time.sleep, [5] * 10))
"""


def test_workers_let_go_of_a_stage_whose_process_was_killed(dask, tmp_path):
    from distributed import Client
    dask.add_worker()
    stage = subprocess.Popen([sys.executable, "-c", WAITING, dask.address, str(tmp_path)], env=clean_environment(),
                             cwd=Path(__file__).parents[2])
    with Client(dask.address, set_as_default=False) as client:
        wait_for(lambda: any(client.processing().values()), 60)
        stage.kill()
        stage.wait()
        wait_for(lambda: not any(client.processing().values()), 20)


def test_an_encrypted_address_without_a_certificate_is_told(tmp_path):
    with (DaskCluster("tls://127.0.0.1:8786", "genai_core.stages.clean", tmp_path) as mapper,
          pytest.raises(InputError, match="asks for a certificate; name yours in DASK_DISTRIBUTED__COMM__TLS")):
        list(mapper(abs, [1]))


def test_an_unreachable_scheduler_ends_the_run_with_one_line(prefect, tmp_path):
    home = Home(tmp_path / "home", {"PREFECT_API_URL": api_of(prefect)})
    home.root.mkdir()
    address = f"tcp://127.0.0.1:{free_port()}"
    done = home.genai("run", "--preset", "smoke", "--set", f"runtime.data_cluster={address}", fails=True)
    lines = [line for line in done.stderr.splitlines() if "no Dask scheduler answers" in line]
    assert lines and address in lines[-1] and "Traceback" not in done.stderr
    assert states(done.stdout).get("collect") != "Completed" and not home.artifacts("collect")
    assert not processes_in(home.root)
