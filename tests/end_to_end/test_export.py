"""Handing on what a run made: each form from the registry, with a card that answers for it."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.mark.parametrize(("form", "files"), [
    ("gguf", {"model.gguf", "Modelfile"}), ("portable", {"model.bin", "run.py", "run.c"}),
    ("huggingface", {"config.json", "model.safetensors", "tokenizer.json"}),
    ("compressed-tensors", {"config.json", "model.safetensors", "tokenizer.json"})])
def test_a_release_leaves_in_each_form_with_its_card(finished, tmp_path, form, files):
    done = finished.genai("export", "--to", str(tmp_path / "out"), "--format", form)
    assert files | {"README.md"} <= {path.name for path in (tmp_path / "out").iterdir()} and "model" in done.stdout
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| wikitext-2 | CC BY-SA 3.0 |" in card and "| sentiment_accuracy | " in card and " to " in card
    assert "genai run --preset smoke" in card and "git checkout" in card and "genai-rlhf/1" in card


def test_the_run_file_of_a_release_answers(finished, tmp_path):
    finished.genai("export", "models:/genai-rlhf@champion", "--to", str(tmp_path / "out"), "--format", "portable")
    done = subprocess.run([sys.executable, "-I", "run.py", "Hello", "-n", "8"], cwd=tmp_path / "out", check=True,
                          capture_output=True, text=True, env={})
    assert done.stdout.strip()


def test_what_cannot_leave_is_one_line(finished, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    for arguments, message in (
            (("--to", str(tmp_path / "mine")), "exists already; name a new folder"),
            (("models:/genai-reward@champion", "--to", str(tmp_path / "out")), "a model of kind reward_model has no"),
            (("--to", str(tmp_path / "out"), "--format", "zip"), "there is no format 'zip'"),
            (("models:/genai-nothing@champion", "--to", str(tmp_path / "out")), "the registry has no such model")):
        done = finished.genai("export", *arguments, fails=True)
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
