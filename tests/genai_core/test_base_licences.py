"""The licence of a base: read from its files, and accepted by name where it asks for it."""

import json

import pytest

from genai_core.bases.files import is_read, is_terms
from genai_core.bases.licences import licence_of, require_acceptance
from genai_core.bases.places import Place, find_place
from genai_core.config.base_model import BaseModelConfig
from genai_core.errors import InputError


def stated(directory, card, config=None):
    (directory / "README.md").write_text(card)
    return licence_of(config or BaseModelConfig(source="x"), Place(directory))


@pytest.mark.parametrize(("front", "licence"), [
    ("license: gemma", "gemma"), ("license: [gemma]", "gemma"),
    ("license:\n- apache-2.0\n- gemma", "apache-2.0 and gemma"), ("license: other", "other"),
    ("license: other\nlicense_name: tongyi", "tongyi"), ("license: 'mit'  # yes", "mit"),
    ("license:\nlanguage: en", "not stated"), ("language: en", "not stated"), ("license: [a: b", "other")])
def test_the_front_matter_of_a_card_is_read_as_yaml(front, licence, tmp_path):
    assert stated(tmp_path, f"---\n{front}\n---\n# A base\n") == licence


@pytest.mark.parametrize("licence", ["nvidia-sample-license", "non-public-research", "modified-mit", "other", "unknown",
                                     "apache-2.0 and gemma", "cc-by-nc-4.0", "openrail"])
def test_what_merely_looks_free_has_to_be_accepted_by_its_name(licence, tmp_path):
    config = BaseModelConfig(source="x")
    with pytest.raises(InputError, match=r"^base\.accept_licence: "):
        require_acceptance(licence, config, Place(tmp_path))
    require_acceptance(licence, config.model_copy(update={"accept_licence": licence}), Place(tmp_path))


@pytest.mark.parametrize("licence", ["Apache-2.0", "MIT", "GPL-3.0-or-later", "cc-by-4.0", "apache-2.0 and mit"])
def test_free_licences_ask_for_nothing(licence, tmp_path):
    require_acceptance(licence, BaseModelConfig(source="x"), Place(tmp_path))


def test_a_licence_file_alone_is_something_to_be_read(tmp_path):
    config = BaseModelConfig(source="x")
    assert licence_of(config, Place(tmp_path)) == "not stated"
    (tmp_path / "LICENSE").write_text("You may not.")
    assert licence_of(config, Place(tmp_path)) == "other"
    with pytest.raises(InputError, match=r"under the terms 'other' \(.*LICENSE\); read them"):
        require_acceptance("other", config, Place(tmp_path))
    assert licence_of(config.model_copy(update={"licence": "mit"}), Place(tmp_path)) == "mit"
    (tmp_path / "base.json").write_text(json.dumps({"licence": "gemma"}))
    assert licence_of(config, Place(tmp_path)) == "gemma", "what was taken in before"


@pytest.mark.parametrize("name", ["license.txt", "License", "Terms_of_use.txt", "USE_POLICY.md", "COPYING", "NOTICE",
                                  "LICENSE-MODEL", "Model_License.pdf", "licence.html"])
def test_terms_are_found_however_their_file_is_called(name, tmp_path):
    (tmp_path / name).write_text("You may not.")
    assert licence_of(BaseModelConfig(source="x"), Place(tmp_path)) == "other" and is_terms(name) and is_read(name)


@pytest.mark.parametrize("name", ["license_check.py", "LICENSE.bin", "terms.json", "license.gguf", "README.md",
                                  "tokenizer.json", "model.safetensors", "attention.txt", "unnoticed.txt"])
def test_what_is_no_text_of_terms_is_none(name):
    assert not is_terms(name)


def test_a_gguf_file_speaks_for_itself_and_not_the_folder_that_it_lies_in(tmp_path):
    gguf = pytest.importorskip("gguf")
    for name, licence in (("silent", ""), ("gemma", "gemma"), ("named", "other")):
        writer = gguf.GGUFWriter(tmp_path / f"{name}.gguf", "llama")
        if licence:
            writer.add_license(licence)
        if licence == "other":
            writer.add_license_name("tongyi")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")

    def found(name, licence=""):
        config = BaseModelConfig(source=str(tmp_path / f"{name}.gguf"), licence=licence)
        return licence_of(config, find_place(config, tmp_path))

    assert (found("gemma"), found("gemma", "mit"), found("named")) == ("gemma", "gemma", "tongyi")
    assert (found("silent", "mit"), found("silent")) == ("mit", "apache-2.0")
