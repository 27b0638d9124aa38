"""Every family: its definition holds together, and its preset smoke runs through all its stages."""

import json

import pytest
from tasks.registered import DATASETS, KEY_FIGURES, STAGE_KINDS, USES

from genai_core.context import LogReporter
from genai_core.errors import InputError
from genai_core.families.config import FAMILIES as CONFIGS
from genai_core.families.config import load_family, section_names
from tasks.families import FAMILIES
from tasks.stage import Context
from tasks.store.workspace import Workspace


@pytest.mark.parametrize("name", CONFIGS)
def test_stages_sections_and_what_is_known_of_them_agree(name):
    family = FAMILIES[name]
    stages = [stage.name for stage in family.all_stages]
    assert tuple(stages) == section_names(name)
    known = set()
    for stage in family.all_stages:
        assert set(stage.inputs) <= known, f"{stage.name} needs a stage that comes later"
        known.add(stage.name)
        assert stage.kind == "report" or STAGE_KINDS[stage.name] == {"dataset": "data", "model": "models"}[stage.kind]
        assert stage.kind != "model" or (stage.name in USES and stage.name in KEY_FIGURES)
        assert stage.kind != "dataset" or stage.name in DATASETS
    assert family.shown_model in family.models
    assert [stage.kind for stage in family.stages].count("dataset") == 1      # the view shows the versioning after it


@pytest.mark.parametrize("name", CONFIGS)
def test_the_preset_smoke_runs(name, tmp_path):
    config = load_family(name, "smoke")
    paths, written = {}, {}
    for stage in FAMILIES[name].stages:
        for needed in (FAMILIES[name].all_stages[0], stage):
            if needed.name in paths:
                continue
            paths[needed.name] = tmp_path / needed.name
            paths[needed.name].mkdir()
            context = Context(Workspace(tmp_path), config, LogReporter(), tmp_path / "checkpoints" / needed.name)
            written[needed.name] = needed.compute(config, {given: paths[given] for given in needed.inputs},
                                                  paths[needed.name], context)
    evaluation = json.loads((paths["evaluate"] / "evaluation.json").read_text())
    pictures = json.loads((paths["evaluate"] / "pictures.json").read_text())
    assert set(FAMILIES[name].figures) & {figure for column in evaluation.values() for figure in column}
    for picture in pictures:
        assert (paths["evaluate"] / picture).read_bytes().startswith(b"\x89PNG")
    assert written["evaluate"].metrics == {f"{column}/{figure}": value for column, figures in evaluation.items()
                                           for figure, value in figures.items()}
    for gate in load_family(name, "laptop").promote.gates.values():
        for figure in (gate.figure, gate.reference or gate.figure):
            assert figure in written["evaluate"].metrics or figure.endswith("_labels"), figure


def test_a_mistake_in_a_preset_or_a_field_is_told_in_one_line():
    with pytest.raises(InputError, match="unknown family 'vea'"):
        load_family("vea", "laptop")
    with pytest.raises(InputError, match="unknown preset 'gpu'"):
        load_family("vae", "gpu")
    with pytest.raises(InputError, match=r"vae.latent_sizes: no such field; did you mean latent_size\?"):
        load_family("vae", "smoke", {"vae.latent_sizes": 3})
    with pytest.raises(InputError, match=r"gru.cell: Input should be 'rnn', 'lstm' or 'gru' \(got 'gruu'\)"):
        load_family("recurrent", "smoke", {"gru.cell": "gruu"})
    assert load_family("vae", "smoke", {"vae.beta": 4}).vae.beta == 4


def test_a_file_says_what_changes_in_the_preset_that_it_extends(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\ncollect: {sources: {standard_library: null, mine: {kind: files, paths: ['*.py'], "
                    "licence: mine}}}\n")
    config, smoke = load_family("code", str(path)), load_family("code", "smoke")
    assert set(config.collect.sources) == {"human_eval", "mine"} and config.code_model == smoke.code_model
    second = tmp_path / "second.yaml"
    second.write_text(f"extends: {path}\ncode_tokens: {{vocab_size: 600}}\n")
    assert set(load_family("code", str(second)).collect.sources) == {"human_eval", "mine"}
    path.write_text(f"extends: {second}\n")
    with pytest.raises(InputError, match="in a circle"):
        load_family("code", str(path))
    path.write_text("extends: gpu\n")
    with pytest.raises(InputError, match="unknown preset 'gpu'"):
        load_family("code", str(path))
