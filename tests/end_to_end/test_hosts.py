"""One training on two hosts, which are network namespaces of this machine joined by a cable that can be pulled.

Each has a workspace of its own; they share MLflow's database and the remote of the data.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.conftest import Home, states
from tests.end_to_end.helpers import processes_in, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

FIRST, SECOND, PORT = "10.77.0.1", "10.77.0.2", 29_433
TWO = ("--set", "runtime.processes=2", "--set", "runtime.hosts=2", "--set", f"runtime.rendezvous={FIRST}:{PORT}")
PRETRAIN = ("run", "--preset", "smoke", "--until", "pretrain", "--set", "runtime.checkpoint_seconds=0.3")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def cable() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them; skipped where the machine forbids it."""
    names = (f"genai-a{os.getpid()}", f"genai-b{os.getpid()}")
    if not shutil.which("ip"):
        pytest.skip("network namespaces: this machine has no `ip` (iproute2)")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable0", "netns", names[1])
        for name, address in zip(names, (FIRST, SECOND), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable0")
            for device in ("lo", "cable0"):
                ip("-n", name, "link", "set", device, "up")
    except subprocess.CalledProcessError as error:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        pytest.skip(f"network namespaces: this machine forbids them ({error.stderr.decode().strip()})")
    yield names
    for name in names:
        ip("netns", "del", name)


class Host(Home):
    """A workspace whose commands run in a namespace."""

    namespace = ""

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *super().command(*arguments)]


@pytest.fixture
def hosts(cable, tmp_path) -> Iterator[tuple[Host, Host]]:
    shared = {"GENAI_DVC_REMOTE": str(tmp_path / "remote"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    pair = (Host(tmp_path / "first", dict(shared)), Host(tmp_path / "second", dict(shared)))
    for host, namespace in zip(pair, cable, strict=True):
        host.root.mkdir()
        host.namespace = namespace
    yield pair
    for host in pair:
        for process in processes_in(host.root):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def ranks_of(host: Host) -> list[psutil.Process]:
    return [process for process in processes_in(host.root) if "tasks.placement.rank" in process.cmdline()
            and "torch.distributed.run" not in process.cmdline()]


def losses(root: Path) -> list[float]:
    (curves,) = root.glob("models/pretrain/*/curves.json")
    return [value for _, value in json.loads(curves.read_text())["loss"]]


def test_hosts_that_share_no_disk_train_what_one_trains_through_a_cut_and_a_loss(hosts, tmp_path):
    first, second = hosts
    alone = Home(tmp_path / "alone", first.more | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/alone.db"})
    alone.root.mkdir()
    alone.genai(*PRETRAIN)
    expected = losses(alone.root)

    # a cut of ten seconds, in mid-training
    joined = second.start("join", f"{FIRST}:{PORT}")
    process = first.start(*PRETRAIN, *TWO)
    wait_for(lambda: first.checkpoints("pretrain"), 240)
    ip("-n", second.namespace, "link", "set", "cable0", "down")
    time.sleep(10)
    ip("-n", second.namespace, "link", "set", "cable0", "up")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert states(output)["pretrain"] == "Completed" and "2 ranks of cpu" in output
    assert losses(first.root) == pytest.approx(expected, rel=2e-2)
    assert {path.parent.name for path in second.root.glob("data/*/*")} == {"tokenize"}      # what the stage reads
    wait_for(lambda: not ranks_of(second), 60)

    # a host that is lost: the other one goes on without it, from the last checkpoint
    process = first.start(*PRETRAIN, *TWO, "--force", "pretrain")
    wait_for(lambda: first.checkpoints("pretrain"), 240)
    for each in processes_in(second.root):
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    joined.wait(timeout=30)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    (step,) = re.findall(r"continuing from the checkpoint at step (\d+)", output)
    assert int(step) > 0 and "on cpu" in output
    assert losses(first.root) == pytest.approx(expected, rel=2e-2)
    assert not ranks_of(first) and not ranks_of(second)


def test_a_host_whose_cable_is_pulled_for_good_is_given_up(hosts):
    first, second = hosts
    second.start("join", f"{FIRST}:{PORT}")
    process = first.start(*PRETRAIN, *TWO, "--set", "pretrain.tokens=200000", "--set", "runtime.silent_seconds=30")
    wait_for(lambda: first.checkpoints("pretrain"), 240)
    ip("-n", second.namespace, "link", "set", "cable0", "down")      # no socket is closed: nobody is told
    try:
        output, _ = process.communicate(timeout=400)
        wait_for(lambda: not ranks_of(second), 120)
    finally:
        ip("-n", second.namespace, "link", "set", "cable0", "up")
    assert process.returncode == 0, output
    assert "no sign of life of" in output
    (step,) = re.findall(r"continuing from the checkpoint at step (\d+)", output)
    assert int(step) > 0 and not ranks_of(first)


def test_hosts_that_do_not_come_and_what_one_lacks_are_said_in_one_line(hosts, tmp_path):
    first, second = hosts
    first.genai("run", "--preset", "smoke", "--until", "tokenize")
    answer = first.genai(*PRETRAIN, *TWO, "--set", "runtime.meet_seconds=3", fails=True)
    assert f"0 of 1 other hosts have come to {FIRST}:{PORT} within 3 s; run `genai join {FIRST}:{PORT}`" in \
        answer.stdout + answer.stderr
    second.more["GENAI_DVC_REMOTE"] = str(tmp_path / "empty")
    second.start("join", f"{FIRST}:{PORT}")
    answer = first.genai(*PRETRAIN, *TWO, fails=True)
    assert "is neither in" in answer.stdout + answer.stderr and "nor in the remote of the data" in \
        answer.stdout + answer.stderr
    assert not ranks_of(first)
