"""Stages on several ranks as a user runs them: one log, one artifact, and no process left, whatever dies."""

import json
import os
import random
import re
import signal
import time

import psutil
import pytest

from tests.end_to_end.conftest import Home, copy_of, states
from tests.end_to_end.helpers import api_of, processes_in, wait_for

pytestmark = pytest.mark.slow

PRETRAIN = ("run", "--preset", "smoke", "--only", "pretrain", "--force", "pretrain", "--set",
            "runtime.checkpoint_seconds=0.3")
TWO = (*PRETRAIN, "--set", "runtime.processes=2")


@pytest.fixture
def home(finished, prefect, tmp_path) -> Home:
    return copy_of(finished, tmp_path / "home", PREFECT_API_URL=api_of(prefect))


def losses(home: Home, stage: str = "pretrain") -> list[float]:
    newest = max(home.artifacts(stage), key=lambda path: path.stat().st_mtime)
    return [value for _, value in json.loads((newest / "curves.json").read_text())["loss"]]


def ranks_of(home: Home) -> list[psutil.Process]:
    return [process for process in processes_in(home.root) if "tasks.placement.rank" in process.cmdline()
            and "torch.distributed.run" not in process.cmdline()]


def in_mid_training(home: Home, *arguments: str):
    process = home.start(*arguments)
    wait_for(lambda: home.checkpoints("pretrain"))
    return process


def test_training_stages_on_two_ranks_end_as_on_one(home, finished):
    stages = ("pretrain", "instruct", "reward", "rlhf")
    done = home.genai("run", "--preset", "smoke", "--from", "pretrain", "--until", "rlhf", "--set",
                      "runtime.processes=2").stdout
    assert {name: states(done)[name] for name in stages} == dict.fromkeys(stages, "Completed")
    for stage in stages:
        assert re.search(rf"^  {stage}: \d+ steps on 2 ranks of cpu", done, re.MULTILINE), done
        assert len(losses(home, stage)) == len(losses(finished, stage))
    assert losses(home) == pytest.approx(losses(finished), rel=2e-2)      # bfloat16 rounds in another order
    assert home.artifact("pretrain").name == finished.artifact("pretrain").name      # ranks are no part of the key


@pytest.mark.heavy
def test_a_rank_that_dies_is_started_again_with_its_group_and_the_end_is_the_same(home):
    home.genai(*TWO)
    undisturbed = losses(home)
    process = in_mid_training(home, *TWO)
    time.sleep(random.uniform(0, 1))
    os.kill(ranks_of(home)[-1].pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "continuing from the checkpoint at step" in output
    assert losses(home) == pytest.approx(undisturbed, rel=2e-2)
    assert not ranks_of(home)


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_the_run_and_the_next_one_goes_on(home, number):
    process = in_mid_training(home, *TWO)
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_for(lambda: not ranks_of(home), 40)
    assert home.checkpoints("pretrain")
    output = home.genai(*PRETRAIN).stdout      # on one rank
    assert "continuing from the checkpoint at step" in output


def test_ranks_share_the_models_to_evaluate_and_find_what_one_finds(home, finished):
    done = home.genai("run", "--preset", "smoke", "--only", "evaluate", "--force", "evaluate", "--set",
                      "runtime.processes=2").stdout
    assert states(done)["evaluate"] == "Completed"
    for model in ("base", "instruct", "rlhf", "int8", "int4"):      # what each of the two found is told
        assert re.search(rf"^  evaluate: {model}: ", done, re.MULTILINE), done
    for file in ("evaluation.json", "outcomes.json", "samples.json"):
        found, expected = (json.loads((each.artifact("evaluate") / file).read_text()) for each in (home, finished))
        assert list(found) == list(expected) and found == expected


def test_what_is_wrong_with_the_ranks_is_said_in_one_line(home):
    answer = home.genai(*PRETRAIN, "--set", "runtime.processes=3", fails=True)
    said = answer.stdout + answer.stderr
    assert "3 ranks (runtime.processes) with 1 micro-batches each (accumulation_steps) do not divide" in said
    assert not ranks_of(home)


@pytest.mark.heavy
def test_no_rank_outlives_what_watches_over_it(home):
    process = in_mid_training(home, *TWO, "--set", "pretrain.tokens=2000000")
    (lifeline,) = [each for each in processes_in(home.root) if "tasks.placement.lifeline" in each.cmdline()
                   and "torch.distributed.run" in each.cmdline()]
    lifeline.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    wait_for(lambda: not ranks_of(home), 60)
