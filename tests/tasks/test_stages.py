"""Declarations: a stage is handed nothing but what its key holds, and names only what is there."""

import inspect

import pytest
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from genai_core.config.pipeline import DERIVED, SECTIONS, STAGE_NAMES, load_pipeline
from tasks.catalog import FAMILIES, lasting_stages, stages_of
from tasks.language_model import STAGES
from tasks.pipeline import RunIdentity, StageRequest
from tasks.store.artifacts import Artifact, KeyParts
from tasks.store.key import resolve, setting

EVERY = [(family, stage) for family in ("", *FAMILIES) for stage in stages_of(family)]


def named(family_and_stage):
    family, stage = family_and_stage
    return f"{family}-{stage.name}".lstrip("-")


@pytest.mark.parametrize("declared", EVERY, ids=named)
def test_the_function_takes_what_the_declaration_gives_and_nothing_else(declared):
    """Whatever a stage reads comes in by an argument, and every argument is a setting or an input of its key."""
    _, stage = declared
    parameters = inspect.signature(resolve(f"{stage.core}:run")).parameters
    given = {*stage.settings, *stage.inputs, *stage.in_service, "out_dir", "context"}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named_ones = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    left_out = {name for name in named_ones - given if parameters[name].default is None}      # of a base from outside
    assert named_ones - left_out <= given and (open_ended or named_ones - left_out == given)
    assert next(iter(parameters)) == "config"


@pytest.mark.parametrize("declared", EVERY, ids=named)
def test_a_stage_reads_no_setting_that_is_not_in_its_key(declared):
    family, stage = declared
    config = FAMILIES[family].load("smoke") if family else load_pipeline("smoke")
    for name in stage.settings.values():
        setting(config, name)      # raises for one that the config does not have
    section = getattr(config, SECTIONS.get(stage.name, stage.name))
    assert type(setting(config, stage.settings["config"])) is type(section), "its own section, or what follows from it"


@pytest.mark.parametrize("declared", EVERY, ids=named)
def test_inputs_are_earlier_stages(declared):
    family, stage = declared
    names = [each.name for each in stages_of(family)]
    assert set(stage.input_stages) <= set(names[:names.index(stage.name)])


def test_every_section_of_the_config_belongs_to_a_stage():
    assert tuple(stage.name for stage in STAGES) == STAGE_NAMES


@pytest.mark.parametrize("name", DERIVED)
def test_what_follows_from_the_config_comes_back_from_a_key_as_it_was(name):
    value = setting(load_pipeline("smoke"), name)
    assert TypeAdapter(DERIVED[name]).validate_python(to_jsonable_python(value)) == value


def test_a_name_means_one_stage_wherever_it_is_used():
    for family in ("", *FAMILIES):
        for stage in stages_of(family):
            assert stage.kind == "report" or lasting_stages()[stage.name] == stage


@pytest.mark.parametrize("declared", EVERY, ids=named)
def test_a_stage_is_handed_its_settings_as_the_config_has_them(declared, tmp_path):
    """A request holds them as JSON, from which each comes back as what it was."""
    family, stage = declared
    config = FAMILIES[family].load("smoke") if family else load_pipeline("smoke")
    values = {name: to_jsonable_python(setting(config, name)) for name in stage.settings.values()}
    artifact = Artifact(stage="", key="", digest="", path="")
    request = StageRequest(family=family, parts=KeyParts(stage.name, values, {}, {}), runtime=config.runtime,
                           inputs=dict.fromkeys((each.name for each in stages_of(family)), artifact),
                           workspace=tmp_path, identity=RunIdentity())
    assert request.arguments() == {argument: setting(config, name) for argument, name in stage.settings.items()}
