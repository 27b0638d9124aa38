"""Records: which commit and which versions made an artifact, and that a run's own traces are no change of the code."""

import subprocess

import pytest

from genai_core.config.pipeline import load_pipeline
from tasks.execution.plan import plan
from tasks.language_model import STAGES, collect
from tasks.registry.model_card import write_model_card
from tasks.store import records
from tasks.store.artifacts import KeyParts, Store
from tasks.store.key import key_parts
from tasks.store.workspace import Workspace


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=folder, check=True,
                   capture_output=True)


def test_a_run_that_rewrites_data_dvc_does_not_make_the_commit_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    assert records.git_commit() == "unknown"
    git(tmp_path, "init", "-q")
    for name in ("data.dvc", "code.py"):
        (tmp_path / name).write_text("before\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    clean = records.git_commit()
    (tmp_path / "data.dvc").write_text("what the run made\n")
    assert records.git_commit() == clean and not clean.endswith("-dirty")
    (tmp_path / "code.py").write_text("another formula\n")
    assert records.git_commit() == f"{clean}-dirty"


@pytest.mark.parametrize(("changed", "told"), [({}, ""), ({"torch": "1.0"}, "torch 1.0 → "),
                                               ({"gone": "3"}, "gone 3 → not installed")])
def test_the_plan_tells_with_which_other_versions_a_hit_was_made(tmp_path, changed, told):
    workspace, config, stage = Workspace(tmp_path), load_pipeline("smoke"), collect
    parts = key_parts(stage, config, {}, workspace)
    store = Store(workspace)
    directory = store.directory(stage.name, stage.kind, parts.key)
    with store.new(directory, parts) as scratch:
        (scratch / "x").write_text("x")
        artifact = store.commit(scratch, directory, parts, {})
    records.write_record(workspace, artifact, {"environment": records.environment() | changed})
    line = plan(config, workspace)[0]
    assert line.state == "hit" and line.why.startswith("made before from the same inputs")
    assert told in line.why and ("other versions" in line.why) == bool(changed)


def test_a_model_card_names_what_made_the_model(tmp_path):
    stage = next(stage for stage in STAGES if stage.name == "reward")
    card = write_model_card(tmp_path, stage, KeyParts("reward", {}, {}, {}), {}, {"accuracy_margin_1": 0.8})
    assert f"| torch | {records.environment()['torch']} |" in card and "| python |" in card
    assert stage.use in card and "| accuracy_margin_1 | 0.8 |" in card
