"""Two hosts that want the same key: one makes it, the other waits, says so, and fetches it; a dead one has no lease."""

import subprocess
import sys
import textwrap
import time

import pytest

from tests.end_to_end.conftest import Home, states
from tests.end_to_end.helpers import address_of, api_of, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

HOLD = """
    import logging, sys, time
    from pathlib import Path
    from tasks import lease
    from tasks.store.workspace import Workspace
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    lease.LOOK_SECONDS, lease.LOOKS, lease.BEAT_SECONDS = 0.25, 12, 0.5
    workspace, seconds = Workspace(Path(sys.argv[1])), float(sys.argv[2])
    with lease.lease(workspace, "pretrain", "a" * 16):
        print("made", flush=True)
        time.sleep(seconds)
"""


@pytest.fixture
def hold(prefect):
    """Starts a process that holds the one lease for so many seconds in a workspace."""
    started = []

    def start(workspace, seconds):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLD), str(workspace), str(seconds)],
                                   env=clean_environment(PREFECT_API_URL=api_of(prefect)), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines_until_made(process):
    lines = []
    while not lines or lines[-1] != "made":
        lines.append(process.stdout.readline().strip())
        assert process.poll() is None, lines
    return lines[:-1]


def test_one_that_lives_is_waited_for_and_the_wait_is_told(hold, tmp_path):
    first = hold(tmp_path / "ann", 6)      # longer than a dead one keeps it
    assert lines_until_made(first) == []
    second = hold(tmp_path / "bob", 0)
    (told,) = lines_until_made(second)
    assert told.startswith(f"waiting for pretrain {'a' * 16}: process {first.pid} on ") and "has it since 20" in told
    assert first.wait(5) == 0 and second.wait(20) == 0


def test_one_that_was_killed_loses_it_to_another_host_after_a_while_and_to_its_own_at_once(hold, tmp_path):
    first = hold(tmp_path / "ann", 60)
    lines_until_made(first)
    first.kill()
    began = time.monotonic()
    waiting, dead = lines_until_made(second := hold(tmp_path / "bob", 60))
    assert waiting.startswith("waiting for") and "is dead: taking over" in dead and time.monotonic() - began > 3
    second.kill()
    (dead,) = lines_until_made(hold(tmp_path / "bob", 0))
    assert "is dead: taking over" in dead


def test_two_hosts_that_begin_at_once_train_a_model_once(prefect, mlflow, tmp_path):
    settings = {"PREFECT_API_URL": api_of(prefect), "MLFLOW_TRACKING_URI": address_of(mlflow),
                "GENAI_DVC_REMOTE": str(tmp_path / "remote")}
    homes = [Home(tmp_path / name, settings) for name in ("ann", "bob")]
    for home in homes:
        home.root.mkdir()
        home.run(until="tokenize")      # so that they come to the training within seconds of each other
    runs = [home.start("run", "--preset", "smoke", "--until", "pretrain", "--set", "pretrain.tokens=1200000")
            for home in homes]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    assert sorted(states(output)["pretrain"] for output in outputs) == ["Completed", "Fetched"], "\n".join(outputs)
    assert sum("waiting for pretrain" in output and "has it since" in output for output in outputs) == 1
    assert homes[0].digests() == homes[1].digests()
    assert [row["version"] for row in homes[0].models()] == [1]
