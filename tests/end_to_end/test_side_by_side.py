"""Stages side by side as a user runs them: overlapping in time, the same end, a failure that stops no other."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.conftest import Home, copy_of, states
from tests.end_to_end.helpers import api_of, processes_in, wait_for

pytestmark = pytest.mark.slow

FAMILY = ("run", "--family", "recurrent", "--preset", "smoke")
THREE = ("--set", "runtime.stages_at_once=3")
MODELS = ("rnn", "lstm", "gru", "character_transformer")


@pytest.fixture(scope="module")
def data(prefect, tmp_path_factory) -> Home:
    """A workspace with the family's data."""
    home = Home(tmp_path_factory.mktemp("side") / "home", {"PREFECT_API_URL": api_of(prefect)})
    home.root.mkdir()
    home.genai(*FAMILY, "--until", "characters")
    return home


@pytest.fixture
def home(data, prefect, tmp_path) -> Home:
    return copy_of(data, tmp_path / "home", PREFECT_API_URL=api_of(prefect))


def children(home: Home) -> list[psutil.Process]:
    return [process for process in processes_in(home.root)
            if any("tasks.placement.rank" in part for part in process.cmdline())
            and "tasks.placement.lifeline" not in process.cmdline()]


def record(home: Home, stage: str) -> dict:
    (path,) = (home.root / ".genai" / "records" / stage).glob("*.json")
    return json.loads(path.read_text())


def losses(home: Home, stage: str) -> list[float]:
    return [value for _, value in json.loads((home.artifact(stage) / "curves.json").read_text())["loss"]]


def test_the_models_of_a_family_train_side_by_side_and_come_out_as_one_after_the_other(home, data, prefect, tmp_path):
    alone = copy_of(data, tmp_path / "alone", PREFECT_API_URL=api_of(prefect))
    alone.genai(*FAMILY)
    output = home.genai(*FAMILY, *THREE).stdout
    done = states(output)
    assert [name for name in done if done[name] == "Completed"][-2:] == ["evaluate", "promote"]
    began = [output.index(f"▶ {name}") for name in MODELS[:3]]
    first_end = min(output.index(f"  {name}: Completed") for name in MODELS)
    assert max(began) < first_end
    for name in MODELS:
        assert home.artifact(name).name == alone.artifact(name).name      # it is no part of the key
        assert losses(home, name) == pytest.approx(losses(alone, name), rel=2e-2)
        measured = record(home, name)
        assert 0 < measured["measurements"]["cpu_seconds"] < 1.5 * measured["seconds"]      # its own
    assert states(home.genai(*FAMILY).stdout) == {**dict.fromkeys(done, "Cached")}


def test_one_that_dies_leaves_the_others_to_their_end_and_the_next_run_makes_it_alone(home):
    process = home.start(*FAMILY, *THREE, "--set", "rnn.tokens=1638400")
    wait_for(lambda: home.checkpoints("rnn") or len(children(home)) == 3, 120)
    time.sleep(1)
    victim = next(child for child in children(home) if "rnn" in _order(child))
    os.kill(victim.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "come to their end first" in output and "perhaps for lack of memory" in output
    assert {name: states(output).get(name) for name in ("lstm", "gru")} == dict.fromkeys(("lstm", "gru"), "Completed")
    assert not children(home)
    again = states(home.genai(*FAMILY, *THREE).stdout)
    assert again["lstm"] == again["gru"] == "Cached" and again["rnn"] == "Completed"


def _order(child: psutil.Process) -> str:
    """The name of the stage that a process computes."""
    with Path(child.cmdline()[-1]).open() as order:
        return json.load(order)["request"]["parts"]["stage"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_none_outlives_the_run(home, number):
    process = home.start(*FAMILY, *THREE)
    wait_for(lambda: len(children(home)) == 3, 120)
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_for(lambda: not children(home), 40)


def test_ranks_and_stages_side_by_side_are_not_both(home):
    answer = home.genai(*FAMILY, *THREE, "--set", "runtime.processes=2", fails=True)
    assert "leave one of the two at 1" in answer.stderr
