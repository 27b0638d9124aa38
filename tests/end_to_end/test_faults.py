"""When things break: a killed run continues to the same weights, and bad input ends before anything is spent."""

import os
import signal
import subprocess

import pytest

from tests.end_to_end.conftest import Home, copy_of
from tests.end_to_end.helpers import processes_in, wait_for

pytestmark = pytest.mark.slow


def test_a_kill_in_the_middle_of_pretraining_continues_to_the_same_weights(copied, tmp_path):
    changed = ("pretrain.seed=5", "pretrain.tokens=400000", "runtime.checkpoint_seconds=0.2")
    arguments = ["run", "--preset", "smoke"]
    for setting in changed:
        arguments += ["--set", setting]
    checkpoints = copied.root / ".genai" / "checkpoints" / "pretrain"
    process = subprocess.Popen(copied.command(*arguments), env=copied.environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(checkpoints.glob("*/step-*"))) > 0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not processes_in(copied.root), 20)
    assert len(list((copied.root / "models" / "pretrain").iterdir())) == 1      # nothing half made is visible
    done = copied.genai(*arguments)
    assert "continuing from the checkpoint at step" in done.stdout

    undisturbed = copy_of(copied, tmp_path / "undisturbed")
    states = copied.run(*changed, force="pretrain")
    assert states["pretrain"] == "Completed" and states["instruct"] == "Cached"

    def weights(home: Home) -> set[bytes]:
        return {path.read_bytes() for path in (home.root / "models" / "pretrain").glob("*/model.safetensors")}

    assert weights(copied) == weights(undisturbed) and len(weights(copied)) == 2
    assert not list((copied.root / ".genai" / "scratch").iterdir())


@pytest.mark.parametrize(("arguments", "message"), [
    (["run", "--preset", "nope"], "unknown preset 'nope'"),
    (["run", "--set", "instruct.epoch=2"], "did you mean epochs?"),
    (["run", "--set", "pretrain.tokens=-1"], "pretrain.tokens"),
    (["run", "--preset", "smoke", "--force", "cook"], "force: unknown stage 'cook'"),
    (["run", "--preset", "smoke", "--set", "collect.sources.trivia=null"],
     "tasks.trivia.sources: there is no source 'trivia' among"),
    (["run", "--preset", "smoke", "--text", "no.txt"], "collect.sources.no.paths: no file matches"),
    (["run", "--preset", "smoke", "--set", "collect.sources.vader.enabled=false", "--set",
      "reward.sources=[vader/movie]", "--until", "rlhf"],
     "--until: this run has no stage rlhf: no source of ratings or preferences is switched on"),
    (["run", "--preset", "smoke", "--set", "collect.sources.mine={kind: files, paths: [no.txt], licence: x}"],
     "collect.sources.mine.paths: no file matches"),
    (["run", "--preset", "smoke", "--set", "collect.sources.chatterbot.sha256=" + "f" * 64],
     "collect.sources.chatterbot: chatterbot-corpus==1.3.3 as the registry serves it does not have sha256"),
    (["chat", "/nowhere"], "/nowhere: neither a model directory nor models:/NAME@ALIAS"),
    (["chat", "models:/genai-quantize@champion"], "the registry has no such model"),
])
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, arguments, message):
    home = Home(tmp_path)
    done = home.genai(*arguments, fails=True)
    assert message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("data/*/*")) and not list(tmp_path.glob("models/*/*"))


@pytest.mark.parametrize(("settings", "message"), [
    (["clean.min_words=100000"], "no training document is left after cleaning (train/documents/too_few_words"),
    (["pretrain.feed_forward_size=100"], "pretrain.feed_forward_size 100 is no multiple of 32"),
    (["tasks.trivia.sources=[trivia/none]"],
     "tasks.trivia: the cleaned data has no problems to fine-tune on; set examples to 0 or switch a source for it on"),
    (["reward.sources=[vader/none]"], "reward.sources: vader/none offer 0 judgements (ratings, preferences"),
])
def test_what_only_the_data_can_tell_is_one_line_too(copied, settings, message):
    settings = [part for setting in settings for part in ("--set", setting)]
    done = copied.genai("run", "--preset", "smoke", *settings, fails=True)
    assert message in done.stderr and "Traceback" not in done.stderr


def test_ones_own_text_in_a_preset_of_three_lines(copied, prose):
    (copied.root / "texts").mkdir()
    for number, page in enumerate(prose[:30]):
        (copied.root / "texts" / f"{number}.txt").write_text(page)
    preset = copied.root / "mine.yaml"
    preset.write_text("extends: smoke\n"
                      "collect: {sources: {mine: {kind: files, paths: ['texts/*.txt'], licence: PSF}}}\n")
    lines = copied.genai("plan", "--preset", str(preset)).stdout
    assert "input mine/0" in lines or "collect.sources.mine" in lines
    done = copied.genai("run", "--preset", str(preset))
    assert "mine: too few documents to hold any out whole" in done.stdout and "licence: PSF" in done.stdout
    (copied.root / "texts" / "3.txt").write_text(prose[40])
    assert "input mine/" in copied.genai("plan", "--preset", str(preset)).stdout
