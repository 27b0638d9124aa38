"""Datasets out of DVC: copied into scratch and never half in place; a remote that has nothing is no error."""

import shutil

import pytest
import yaml

from tasks.execution import garbage
from tasks.store import dvc
from tasks.store.artifacts import KeyParts, Store
from tasks.store.workspace import Workspace

PARTS = KeyParts("clean", {}, {}, {"genai_core.stages.clean": {"run": "f00"}})


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def commit(workspace):
    store = Store(workspace)
    directory = store.directory("clean", "dataset", PARTS.key)
    with store.new(directory, PARTS) as scratch:
        (scratch / "a.txt").write_text("hello")
        return directory, store.commit(scratch, directory, PARTS, {})


def test_a_dataset_that_was_pushed_is_fetched_into_scratch_and_adopted(workspace):
    directory, artifact = commit(workspace)
    dvc.add_and_push(workspace)
    shutil.rmtree(directory)
    store = Store(workspace)
    with store.fetching(directory) as scratch:
        assert dvc.fetch(workspace, directory, scratch) and not directory.exists()
        assert store.adopt(scratch, directory) == artifact
    assert (directory / "a.txt").read_text() == "hello" and not list(workspace.scratch.iterdir())


def test_a_remote_without_what_data_dvc_names_has_nothing(workspace):
    entry = {"outs": [{"md5": "0" * 32 + ".dir", "hash": "md5", "path": "data"}]}
    (workspace.root / "data.dvc").write_text(yaml.safe_dump(entry))
    directory = workspace.data / "clean" / PARTS.key
    assert not dvc.fetch(workspace, directory, workspace.root / "target")
    assert not directory.exists()


def test_without_data_dvc_nothing_is_fetched(workspace):
    assert not dvc.fetch(workspace, workspace.data / "clean" / PARTS.key, workspace.root / "target")


def test_a_file_of_the_users_own_in_data_is_no_dataset(workspace):
    commit(workspace)
    (workspace.data / "README.txt").write_text("mine")
    md5 = dvc.add_and_push(workspace)["md5"]
    assert dvc.directories_of(workspace, md5) == {("clean", PARTS.key)}


def test_no_dataset_is_garbage_while_data_dvc_cannot_be_read(workspace):
    directory, _ = commit(workspace)
    dvc.add_and_push(workspace)
    stale = workspace.data / "clean" / "stale"
    artifacts = {directory: {}, stale: {}}
    assert garbage._in_git_history(workspace, artifacts) == {directory}
    text = (workspace.root / "data.dvc").read_text()
    (workspace.root / "data.dvc").write_text(f"<<<<<<< here\n{text}=======\n{text}>>>>>>> there\n")
    assert garbage._in_git_history(workspace, artifacts) == {directory, stale}
