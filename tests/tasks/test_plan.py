"""The plan: what would run and why, before anything does."""

import json

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.errors import InputError
from tasks.config import load_config
from tasks.execution.plan import plan
from tasks.language_model import STAGES, collect
from tasks.store import records
from tasks.store.artifacts import Store
from tasks.store.key import key_parts
from tasks.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def pretend(workspace, config, stage_name, inputs):
    """Commit an artifact of a stage under its true key, so that the plan finds it."""
    stage = next(stage for stage in STAGES if stage.name == stage_name)
    parts = key_parts(stage, config, inputs, workspace)
    store = Store(workspace)
    directory = store.directory(stage.name, stage.kind, parts.key)
    with store.new(directory, parts) as scratch:
        (scratch / "x").write_text(stage_name)
        return store.commit(scratch, directory, parts, {"ratings_kept": 100})


def test_an_empty_workspace_makes_everything(workspace):
    lines = plan(load_pipeline("smoke"), workspace)
    assert [line.state for line in lines] == ["miss"] + ["unknown"] * 9
    assert lines[0].why == "never made here" and lines[1].why == "depends on what collect makes"
    pretrain = next(line for line in lines if line.stage == "pretrain")
    assert pretrain.parameters and pretrain.tokens and pretrain.flops and pretrain.memory_bytes and pretrain.seconds


def test_a_changed_field_is_named_with_both_values(workspace):
    config = load_pipeline("smoke")
    collected = pretend(workspace, config, "collect", {})
    cleaned = pretend(workspace, config, "clean", {"collect": collected})
    lines = plan(config, workspace)
    assert [line.state for line in lines][:3] == ["hit", "hit", "miss"]
    assert [line.digest for line in lines][:3] == [collected.digest, cleaned.digest, ""]
    changed = load_pipeline("smoke", {"clean.min_words": 7})
    line = plan(changed, workspace)[1]
    assert line.state == "miss" and line.why == "clean.min_words: 5 → 7" and line.again.startswith("all shards")


def test_forced_says_so(workspace):
    config = load_pipeline("smoke")
    pretend(workspace, config, "collect", {})
    line = plan(config, workspace, frozenset({"collect"}))[0]
    assert (line.state, line.why) == ("miss", "forced")


def test_changed_code_is_named(workspace):
    config = load_pipeline("smoke")
    artifact = pretend(workspace, config, "collect", {})
    directory = artifact.directory(workspace)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["code"]["genai_core.data.sources.readers"]["read_tatoeba"] = "0" * 16
    (directory / "manifest.json").write_text(json.dumps(manifest))
    directory.rename(directory.with_name("f" * 16))
    now = key_parts(collect, config, {}, workspace).code["genai_core.data.sources.readers"]["read_tatoeba"]
    line = plan(config, workspace)[0]
    assert not line.again, "other code takes nothing over"
    assert line.why == (
        f"code of genai_core.data.sources.readers.read_tatoeba: 00000000 → {now[:8]}")


def test_the_time_of_a_stage_is_told_by_the_newest_run_of_about_as_much_work(workspace):
    config = load_pipeline("smoke")
    flops = next(line for line in plan(config, workspace) if line.stage == "pretrain").flops
    folder = workspace.hidden / "records" / "pretrain"
    folder.mkdir(parents=True)

    def record(name, started, work, seconds):
        (folder / f"{name}.json").write_text(json.dumps({"started": started, "flops": work, "seconds": seconds,
                                                         "host": records.host()["host"]}))

    record("older", "2026-01-01", flops, 70.0)
    record("newer", "2026-01-02", 2 * flops, 100.0)
    record("small", "2026-01-03", flops / 100, 60.0)
    assert next(line for line in plan(config, workspace) if line.stage == "pretrain").seconds == pytest.approx(50.0)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"evaluate.judge.model": "nowhere"}, r"evaluate\.judge\.model: nowhere: there is no such model directory"),
    ({"evaluate.lm_eval": {"tasks": ["films"], "folder": "nowhere"}},
     r"evaluate\.lm_eval(\.folder: nowhere: there is no such folder|: the package lm_eval is not installed)")])
def test_what_evaluate_reads_from_outside_must_be_there_from_the_start(overrides, message, tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    with pytest.raises(InputError, match=message):
        load_config("smoke", "", overrides)
    load_config("smoke", "", {**overrides, "stages": ["instruct"]})
