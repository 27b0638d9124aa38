"""A base on the hub: what it is and asks for is known before its weights are downloaded."""

import errno
import json
from types import SimpleNamespace

import pytest

from genai_core.bases.places import file_digests, find_place
from genai_core.config.base_model import BaseModelConfig
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.stages import adopt

hub = pytest.importorskip("huggingface_hub")
SHARDED = {"config.json": 1, "README.md": 1, "model-1.safetensors": 9, "model-2.safetensors": 9, "tokenizer.json": 1,
           "model.safetensors.index.json": 1, "consolidated.safetensors": 18, "original/consolidated.safetensors": 18,
           "modeling_own.py": 1, "pytorch_model.bin": 18}
MANY = {"README.md": 1, "a-q4.gguf": 5, "a-q8.gguf": 9}


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub with one model: what is set is what it has, and `fetched` what was downloaded of it."""
    state = SimpleNamespace(files=SHARDED, card="---\nlicense: apache-2.0\n---\n", total=None, fetched=[], error=None)

    def model_info(self, name, **_):
        if state.error:
            raise state.error
        return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=file, size=size)
                                                       for file, size in state.files.items()],
                               gguf=None, safetensors=SimpleNamespace(total=state.total) if state.total else None)

    def snapshot_download(name, revision, allow_patterns):
        assert revision == "c0ffee"
        state.fetched += allow_patterns
        for file in allow_patterns:
            (tmp_path / file).write_text({"README.md": state.card, "model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})}.get(file, "{}"))
        return str(tmp_path)

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    return state


def taken(tmp_path, source="org/name", **settings):
    return adopt.run(BaseModelConfig(source=source, **settings), out_dir=tmp_path, context=Context(tmp_path))


def weights(names):
    return [name for name in names if name.endswith((".safetensors", ".gguf"))]


def test_only_the_named_files_at_the_top_are_downloaded(served, tmp_path):
    place = find_place(BaseModelConfig(source="org/name"), tmp_path)
    assert place.directory == tmp_path and not place.gguf
    assert sorted(set(served.fetched)) == ["README.md", "config.json", "model-1.safetensors", "model-2.safetensors",
                                           "model.safetensors.index.json", "tokenizer.json"]


def test_terms_are_asked_for_before_weights_are_downloaded(served, tmp_path):
    served.card = "---\nlicense: gemma\n---\n"
    with pytest.raises(InputError, match=r"under the terms 'gemma'"):
        taken(tmp_path)
    assert "README.md" in served.fetched and not weights(served.fetched)


@pytest.mark.parametrize("told", [True, False])
def test_a_model_that_the_memory_or_the_disk_does_not_hold_is_not_downloaded(told, served, tmp_path, monkeypatch):
    served.files = {"config.json": 1, "model.safetensors": 1 if told else 10**18}
    served.total = 10**17 if told else None
    with pytest.raises(InputError, match=r"^org/name: .* billion parameters take .* GiB of memory"):
        taken(tmp_path)
    monkeypatch.setattr("genai_core.stages.adopt.require_memory", lambda *_: None)
    served.files |= {"model.safetensors": 10**18}
    with pytest.raises(InputError, match=r"org/name takes .* GiB in .*; make room, or set HF_HOME"):
        taken(tmp_path)
    assert not weights(served.fetched)


def test_of_many_gguf_files_one_is_named_in_the_source(served, tmp_path):
    served.files = MANY
    with pytest.raises(InputError, match=r"org/name has 2 GGUF files; name one of them \(org/name/a-q4\.gguf, "):
        taken(tmp_path)
    assert not served.fetched
    with pytest.raises(InputError, match=r"has no file b\.gguf on the hub; there are a-q4\.gguf, a-q8\.gguf"):
        find_place(BaseModelConfig(source="org/name/b.gguf"), tmp_path)
    assert find_place(BaseModelConfig(source="org/name/a-q8.gguf"), tmp_path).gguf == "a-q8.gguf"
    assert weights(served.fetched) == ["a-q8.gguf"]


@pytest.mark.parametrize(("error", "message"), [
    (ConnectionError("off"), "the hub cannot be reached"), (TimeoutError(), "the hub cannot be reached"),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    (ValueError("odd"), r"cannot be downloaded from the hub \(ValueError: odd\)")])
def test_what_goes_wrong_with_the_hub_is_told_apart(error, message, served, tmp_path):
    served.error = error
    with pytest.raises(InputError, match=message):
        find_place(BaseModelConfig(source="org/name"), tmp_path)


def test_a_branch_is_the_commit_that_it_is_today_in_the_key(served, tmp_path):
    commit = "a" * 40
    for revision, expected in (("main", "c0ffee"), ("", "c0ffee"), (commit, commit)):
        assert file_digests(BaseModelConfig(source="org/name", revision=revision), tmp_path) == {
            "base/org/name": expected}


def test_an_earlier_download_serves_where_no_network_is(served, tmp_path, monkeypatch):
    served.error = ConnectionError("off")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file, **_: str(tmp_path / file))
    assert find_place(BaseModelConfig(source="org/name"), tmp_path).directory == tmp_path
