"""Every family: its declaration holds together, and its presets can be read (`tests/end_to_end/` runs them)."""

import pytest

from genai_core.errors import InputError
from tasks.catalog import FAMILIES, family_named, lasting_stages


def load_family(name, preset, overrides=None):
    return family_named(name).load(preset, overrides)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_sections_and_what_is_known_of_them_agree(name):
    family = FAMILIES[name]
    stages = [stage.name for stage in family.all_stages]
    sections = [field for field in family.config_class.model_fields if field not in ("family", "runtime")]
    assert set(stages) == set(sections) and len(stages) == len(set(stages))
    known = set()
    for stage in family.all_stages:
        assert set(stage.input_stages) <= known, f"{stage.name} needs a stage that comes later"
        known.add(stage.name)
        assert stage.kind == "report" or lasting_stages()[stage.name] == stage
        assert stage.kind != "model" or (stage.use and stage.figures)
    assert family.shown_model in family.models
    assert [stage.kind for stage in family.stages].count("dataset") == 1      # the view shows the versioning after it


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
    with pytest.raises(InputError, match="family: this is a config of gan, asked for was vae"):
        load_family("vae", "smoke", {"family": "gan"})


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
