"""Artifacts: whole or not there, and a look at the bytes before any is trusted."""

import json
import math
import threading

import pytest

from genai_core.context import read_metrics
from tasks.store.artifacts import Artifact, Damaged, KeyParts, Store, read_manifest
from tasks.store.workspace import Workspace

PARTS = KeyParts("clean", {"a": {"b": 1}}, {"collect": "abc"}, {"genai_core.stages.clean": "f00"})


@pytest.fixture
def store(tmp_path):
    return Store(Workspace(tmp_path))


def make(store, text="hello"):
    directory = store.directory("clean", "dataset", PARTS.key)
    with store.new(directory, PARTS) as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "a.txt").write_text(text)
        return directory, store.commit(scratch, directory, PARTS, {"rows": 1})


def test_the_same_parts_give_the_same_key_and_any_other_another():
    others = [KeyParts("tokenize", PARTS.config, PARTS.inputs, PARTS.code),
              KeyParts("clean", {"a": {"b": 2}}, PARTS.inputs, PARTS.code),
              KeyParts("clean", PARTS.config, {"collect": "abd"}, PARTS.code),
              KeyParts("clean", PARTS.config, PARTS.inputs, {"genai_core.stages.clean": "f01"})]
    keys = {parts.key for parts in [PARTS, *others]}
    assert len(keys) == 5
    assert PARTS.key == KeyParts("clean", {"a": {"b": 1}}, {"collect": "abc"}, {"genai_core.stages.clean": "f00"}).key


def test_what_is_committed_is_found_and_the_manifest_is_the_same_bytes_each_time(store):
    directory, artifact = make(store)
    first = (directory / "manifest.json").read_bytes()
    assert store.find(directory) == artifact == Artifact.model_validate_json(artifact.model_dump_json())
    assert make(store)[1] == artifact and (directory / "manifest.json").read_bytes() == first
    assert len(artifact.model_dump_json()) < 1000


def test_a_metric_that_is_not_finite_is_null_in_the_manifest_and_nan_to_who_reads_it(store):
    directory = store.directory("clean", "dataset", PARTS.key)
    with store.new(directory, PARTS) as scratch:
        artifact = store.commit(scratch, directory, PARTS, {"stopped_by_reward": float("nan"), "rows": 1})
    manifest = json.loads((directory / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert manifest["metrics"] == {"stopped_by_reward": None, "rows": 1}
    assert store.find(directory) == artifact
    for metrics in (read_manifest(directory)["metrics"], read_metrics(directory)):
        assert math.isnan(metrics["stopped_by_reward"]) and metrics["rows"] == 1


def test_an_error_on_the_way_leaves_nothing(store):
    directory = store.directory("clean", "dataset", PARTS.key)
    with pytest.raises(RuntimeError), store.new(directory, PARTS) as scratch:
        (scratch / "a.txt").write_text("half")
        raise RuntimeError
    assert not directory.exists() and not list(store.workspace.scratch.iterdir())


@pytest.mark.parametrize("damage", ["flip", "remove", "add", "manifest", "manifest_config", "no_manifest"])
def test_damage_is_found_and_looking_takes_nothing_away(store, damage):
    directory, _ = make(store)
    file, manifest = directory / "sub" / "a.txt", directory / "manifest.json"
    if damage == "flip":
        file.write_bytes(b"hellp")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (directory / "extra").write_text("x")
    elif damage == "manifest":
        manifest.write_text("{")
    elif damage == "manifest_config":
        manifest.write_text(manifest.read_text().replace('"b": 1', '"b": 7'))
    else:
        manifest.unlink()
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert Store(store.workspace).find(directory) is None
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == files
    make(store)      # whoever makes it again, under the key's lock, replaces it
    assert Store(store.workspace).find(directory) is not None


def test_a_fetched_copy_is_taken_only_if_its_bytes_are_right(store, tmp_path):
    directory, artifact = make(store)
    copy = tmp_path / "copy" / directory.name
    copy.parent.mkdir()
    directory.rename(copy)
    assert store.adopt(copy, directory) == artifact
    directory.rename(copy)
    (copy / "sub" / "a.txt").write_text("other")
    assert store.adopt(copy, directory) is None and not directory.exists()


def test_a_reader_never_takes_away_what_is_being_fetched(store, tmp_path):
    """A directory without its manifest may be half of a pull: another process that looks at it leaves it alone."""
    directory, _ = make(store)
    manifest = (directory / "manifest.json").read_bytes()
    (directory / "manifest.json").unlink()
    assert Store(store.workspace).find(directory) is None and (directory / "sub" / "a.txt").read_text() == "hello"
    (directory / "manifest.json").write_bytes(manifest)
    assert Store(store.workspace).find(directory) is not None


def test_a_key_refuses_what_has_no_lasting_identity():
    for value in ({1, 2}, float("nan"), object(), {1: "a"}, b"bytes"):
        with pytest.raises(TypeError, match="clean"):
            _ = KeyParts("clean", {"clean": {"a": value}}, {}, {}).key


def test_the_words_of_a_model_card_are_outside_the_digest(store):
    def made(card):
        directory = store.directory("clean", "dataset", PARTS.key)
        with store.new(directory, PARTS) as scratch:
            (scratch / "weights").write_text("w")
            (scratch / "README.md").write_text(card)
            return store.commit(scratch, directory, PARTS, {})

    assert made("one").digest == made("another").digest


@pytest.mark.parametrize("content", ["null", "5", "[]", "{}", "[" * 100_000, '{"stage": NaN}'])
def test_a_manifest_of_anything_is_damaged_and_no_crash(store, content):
    directory, _ = make(store)
    (directory / "manifest.json").write_text(content)
    assert Store(store.workspace).find(directory) is None


def test_looking_while_others_replace_it_never_fails(store):
    directory, _ = make(store)
    stop = threading.Event()
    failures = []

    def look():
        while not stop.is_set():
            try:
                Store(store.workspace).find(directory)
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(100):
        make(store)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


def test_verify_names_the_file(store):
    directory, _ = make(store)
    (directory / "sub" / "a.txt").write_text("x" * 5)
    with pytest.raises(Damaged, match=r"sub/a\.txt has other bytes"):
        Store(store.workspace).verify(directory)
