"""SIGKILL at random moments in every stage: a re-run always completes, to the same bytes; nothing is left behind."""

import random
import signal
import sqlite3
import time

import httpx
import pytest

from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace
from tests.end_to_end.conftest import STAGES, TASKS, Home, states
from tests.end_to_end.helpers import api_of, processes_in, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

KILLS = 20
TYPICAL_SECONDS = {"collect": 4, "clean": 5, "tokenize": 2, "pretrain": 2.5, "instruct": 1.5, "reward": 2, "rlhf": 1,
                   "quantize": 1, "evaluate": 4, "promote": 0.2}
"""Only says where the random moments are drawn from."""


def kill_in(home: Home, stage: str, after: float) -> None:
    """Start a run, wait until it says that it begins the stage, and kill it some time later."""
    process = home.start("run", "--preset", "smoke", "--set", "runtime.checkpoint_seconds=0.3")
    assert process.stdout
    for line in process.stdout:
        if line.strip() == f"▶ {stage}":
            break
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_twenty_kills_end_in_the_bytes_of_an_undisturbed_run(finished, prefect, tmp_path):
    home = Home(tmp_path / "home", {"PREFECT_API_URL": api_of(prefect)})
    home.root.mkdir()
    random_moment = random.Random(7)
    for number in range(KILLS):
        stage = STAGES[number // 2]
        kill_in(home, stage, random_moment.uniform(0, TYPICAL_SECONDS[stage]))
        wait_for(lambda: not processes_in(home.root), 30)
        store = Store(Workspace(home.root))
        for name in STAGES:
            for path in home.artifacts(name):
                store.verify(path)      # raises for anything half made
    done = home.genai("run", "--preset", "smoke", "--set", "runtime.checkpoint_seconds=0.3")
    assert set(states(done.stdout)) == set(TASKS)
    assert home.digests() == finished.digests()
    assert not list((home.root / ".genai" / "scratch").iterdir())
    assert not list((home.root / ".genai" / "live").iterdir())
    rows = home.models()
    assert [row["version"] for row in rows] == [1] * 5      # nothing doubled
    with sqlite3.connect(home.root / "mlflow.db") as database:
        statuses = dict(database.execute("select status, count(*) from runs group by status").fetchall())
    assert "RUNNING" not in statuses and statuses["KILLED"] >= KILLS // 2
    left = httpx.post(f"{api_of(prefect)}/flow_runs/filter",
                      json={"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}).json()
    assert left == []
