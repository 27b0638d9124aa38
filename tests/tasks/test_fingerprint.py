"""The code fingerprint: comments change nothing, formulas change the stages that reach them and no other."""

import shutil

import pytest

from tasks.language_model import STAGES
from tasks.store import fingerprint
from tasks.store.workspace import REPOSITORY


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the core whose files can be edited."""
    shutil.copytree(REPOSITORY / "genai_core", tmp_path / "genai_core")
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    fingerprint._read.cache_clear()
    yield tmp_path
    fingerprint._read.cache_clear()


def changed_stages(copy, file, before, after):
    def prints():
        fingerprint._read.cache_clear()
        return {stage.name: fingerprint.code_fingerprint(stage.core) for stage in STAGES}

    path = copy / "genai_core" / file
    first, text = prints(), path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    second = prints()
    return {name for name in first if first[name] != second[name]}


@pytest.mark.parametrize(("before", "after"), [
    ("# one less leaves room", "# leaves room"),
    ('"""Windows of consecutive tokens', '"""Runs of consecutive tokens'),
    ("here = epochs == epoch", "here  =  (epochs == epoch)"),
])
def test_comments_docstrings_and_spacing_change_nothing(copy, before, after):
    assert changed_stages(copy, "data/tokens/batches.py", before, after) == set()


@pytest.mark.parametrize(("file", "before", "after", "stages"), [
    ("training/objectives/next_token.py", "targets\"].numel()", "targets\"].numel() + 1", {"pretrain"}),
    ("data/tokens/batches.py", "self.seed, epoch", "self.seed, epoch + 1",
     {"adopt", "pretrain", "instruct", "reward", "rlhf", "quantize", "evaluate", "promote"}),
    ("data/clean/quality.py", "return \"too_few_words\"", "return \"too_short\"", {"clean"}),
    ("data/instruction/packing.py", "segments=np.zeros(shape, np.int32)", "segments=np.zeros(shape, np.int64)",
     {"instruct", "rlhf", "quantize"}),
    ("quantization/blocks.py", "torch.linspace(0.7, 1.1, 17)", "torch.linspace(0.7, 1.0, 17)", {"quantize"}),
    ("evaluation/release/gates.py", "value <= bound if", "value < bound if", {"promote"}),
])
def test_a_formula_changes_the_stages_that_reach_it(copy, file, before, after, stages):
    assert changed_stages(copy, file, before, after) == stages


def test_the_transformer_reaches_every_training_stage_and_no_data_stage(copy):
    changed = changed_stages(copy, "models/transformer.py", "std=0.02", "std=0.03")
    assert {"pretrain", "instruct", "reward", "rlhf", "quantize"} <= changed
