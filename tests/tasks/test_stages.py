"""Stages: what each reads is in its key, and its inputs come before it."""

import ast
import inspect

import pytest
from tasks.stages import STAGE_NAMES, STAGES

from genai_core.config.pipeline import STAGE_NAMES as SECTIONS


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_reads_no_setting_that_is_not_in_its_key(stage):
    """Walk the source of the stage's task: every `config.section` and `config.section.field` must be declared."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(stage.compute)))
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config":
            read.add(node.attr)
    assert read - {"runtime"} <= {name.split(".")[0] for name in stage.settings}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_inputs_are_earlier_stages(stage):
    earlier = STAGE_NAMES[:STAGE_NAMES.index(stage.name)]
    assert set(stage.inputs) <= set(earlier)


def test_every_section_of_the_config_belongs_to_a_stage():
    assert SECTIONS == STAGE_NAMES
