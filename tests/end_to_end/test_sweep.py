"""A sweep keeps what its combinations gave: one that fails is a row with the reason, one that is stopped no failure."""

import signal
import sqlite3

import httpx
import pytest

from tests.end_to_end.conftest import Home
from tests.end_to_end.helpers import api_of

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.fixture
def home(prefect, tmp_path):
    made = Home(tmp_path / "home", {"PREFECT_API_URL": api_of(prefect)})
    made.root.mkdir()
    return made


def runs(home):
    with sqlite3.connect(home.root / "mlflow.db") as database:
        return dict(database.execute("select name, status from runs where name not in ('collect', 'clean')").fetchall())


def test_a_failed_combination_stops_no_other_and_the_table_says_why(home):
    done = home.genai("sweep", "clean.min_words=1000000,6", "--preset", "smoke", "--until", "clean", fails=True)
    assert "too_few_words" in done.stdout and "│ 1,000,000 " in done.stdout and "│ 6 " in done.stdout
    assert "1 of 2 combinations failed" in done.stderr and "Traceback" not in done.stdout + done.stderr
    (status,) = [status for name, status in runs(home).items()
                 if name.startswith("sweep · smoke · clean.min_words=1000000,6")]
    assert status == "FAILED"
    flow_runs = httpx.post(f"{home.more['PREFECT_API_URL']}/flow_runs/filter", json={
        "flow_runs": {"name": {"like_": "sweep · smoke · clean.min_words=1000000,6"}}}).json()
    assert [run["state_name"] for run in flow_runs] == ["Failed"]


def test_a_sweep_that_is_stopped_is_killed_and_not_failed(home):
    process = home.start("sweep", "clean.min_words=6,7,8", "--preset", "smoke", "--until", "clean")
    for line in process.stdout:
        if "clean: Completed" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [status for name, status in runs(home).items() if name.startswith("sweep")] == ["KILLED"]


def test_a_search_is_made_once_and_a_second_time_from_the_cache(home):
    search = ("sweep", "pretrain.learning_rate=1e-3..1e-1", "--trials", "3", "--minimize", "pretrain/bits_per_byte",
              "--preset", "smoke", "--until", "pretrain")
    done = home.genai(*search)
    assert "trial 3 of 3: pretrain/bits_per_byte" in done.stdout and done.stdout.count("pretrain: Completed") == 3
    again = home.genai(*search)
    assert again.stdout.count("pretrain: Cached") == 3
    (status,) = {status for name, status in runs(home).items()
                 if name.startswith("sweep · smoke · pretrain.learning_rate=0.001..0.1")}
    assert status == "FINISHED"
