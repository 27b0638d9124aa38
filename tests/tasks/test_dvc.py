"""DVC: `data.dvc` names the datasets of the run that wrote it, a clone pulls these, and secrets stay in memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.execution import garbage
from tasks.store import dvc, published
from tasks.store.artifacts import Artifact, KeyParts, Store
from tasks.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "here")


def commit(workspace: Workspace, stage: str = "clean", text: str = "hello", kind: str = "dataset") -> Artifact:
    workspace.root.mkdir(exist_ok=True)
    parts = KeyParts(stage, {"text": text}, {}, {f"genai_core.stages.{stage}": {"run": "f00"}})
    store = Store.of(workspace)
    directory = store.directory(stage, kind, parts.key)
    with store.new(directory, parts) as scratch:
        (scratch / "a.txt").write_text(text)
        return store.commit(scratch, directory, parts, {})


def call_dvc(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([Path(sys.executable).with_name("dvc"), *arguments], cwd=workspace.root, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, check=False)


def test_data_dvc_names_the_datasets_of_one_run_and_no_others(workspace):
    first, second = commit(workspace, text="first"), commit(workspace, text="second")
    named = published.name_datasets(workspace, [first])
    assert dvc.current_md5(workspace) == named
    assert dvc.directories_of(workspace, named) == {("clean", first.key)}
    assert published.name_datasets(workspace, [second]) != named
    assert published.name_datasets(workspace, [first]) == named
    assert first.directory(workspace).is_dir() and second.directory(workspace).is_dir()


def test_dvc_itself_pulls_just_these_into_a_clone(workspace, tmp_path, monkeypatch):
    first, second = commit(workspace, text="first"), commit(workspace, text="second")
    monkeypatch.setenv("GENAI_DVC_REMOTE", str(tmp_path / "remote"))
    published.name_datasets(workspace, [second])
    published.name_datasets(workspace, [first])
    clone = Workspace(tmp_path / "clone")
    clone.root.mkdir()
    for arguments in (["init", "-q", "--no-scm"], ["remote", "add", "-q", "-d", "there", str(tmp_path / "remote")]):
        assert call_dvc(clone, *arguments).returncode == 0
    shutil.copy(workspace.root / "data.dvc", clone.root)
    pulled = call_dvc(clone, "pull", "-q")
    assert pulled.returncode == 0, pulled.stderr
    assert Store.of(clone).find(first.directory(clone)) == first and not second.directory(clone).exists()
    assert "up to date" in call_dvc(clone, "status").stdout


def test_what_dvc_takes_away_when_it_checks_data_out_comes_back_by_its_key(workspace):
    """`dvc checkout` makes `data/` what `data.dvc` names: other datasets leave it, and are in the cache."""
    first, second = commit(workspace, text="first"), commit(workspace, text="second")
    published.name_datasets(workspace, [first])
    published.name_datasets(workspace, [second])
    assert call_dvc(workspace, "checkout", "-q").returncode == 0
    assert not first.directory(workspace).exists() and second.directory(workspace).is_dir()
    assert published.fetch(workspace, "clean", "dataset", first.key) == first


def test_dvc_does_not_take_away_what_nobody_versioned(workspace):
    published.name_datasets(workspace, [commit(workspace)])
    mine = workspace.data / "README.txt"
    mine.write_text("mine")
    assert call_dvc(workspace, "checkout", "-q").returncode != 0 and mine.read_text() == "mine"


def test_the_remote_of_the_environment_is_on_no_disk_and_ends_with_it(workspace, tmp_path, monkeypatch):
    address = "ssh://user:a-secret@127.0.0.1:9/dvc"
    commit(workspace)
    monkeypatch.setenv("GENAI_DVC_REMOTE", address)
    with dvc.repository(workspace) as opened:
        assert opened.config["remote"][opened.config["core"]["remote"]]["url"] == address
    monkeypatch.delenv("GENAI_DVC_REMOTE")
    with dvc.remote(workspace) as remote:
        assert remote.path == str(workspace.hidden / "dvc-remote")
    assert not [file for file in workspace.root.rglob("*") if file.is_file() and b"a-secret" in file.read_bytes()]


def test_a_remote_that_an_earlier_version_wrote_down_is_forgotten(workspace):
    commit(workspace)
    with dvc.repository(workspace):
        pass
    local = workspace.root / ".dvc" / "config.local"
    local.write_text("[core]\n    remote = given\n['remote \"given\"']\n    url = ssh://user:a-secret@host/dvc\n"
                     "['remote \"mine\"']\n    url = /srv/mine\n")
    with dvc.repository(workspace) as opened:
        assert opened.config["core"]["remote"] == "workspace" and "mine" in opened.config["remote"]
        assert opened.config["remote"]["workspace"]["url"] == str(workspace.hidden / "dvc-remote")
    assert "a-secret" not in local.read_text() and "/srv/mine" in local.read_text()


def test_the_remote_of_a_workspace_moves_with_it(workspace, tmp_path):
    """What is known to be there stays known, and `dvc pull` finds it."""
    artifact = commit(workspace)
    published.name_datasets(workspace, [artifact])
    moved = Workspace(tmp_path.with_name(f"{tmp_path.name}-moved"))
    shutil.copytree(workspace.root, moved.root, symlinks=True)
    assert published.all_known(moved, [artifact])
    with dvc.repository(moved) as opened:
        assert opened.config["remote"]["workspace"]["url"] == str(moved.hidden / "dvc-remote")


def test_a_file_of_the_users_own_in_data_is_no_dataset(workspace):
    artifact = commit(workspace)
    (workspace.data / "README.txt").write_text("mine")
    md5 = published.name_datasets(workspace, [artifact])
    assert dvc.directories_of(workspace, md5) == {("clean", artifact.key)}


def test_data_dvc_is_written_as_dvc_writes_it(workspace):
    published.name_datasets(workspace, [commit(workspace)])
    out = yaml.safe_load((workspace.root / "data.dvc").read_text())["outs"]
    assert [sorted(entry) for entry in out] == [["hash", "md5", "nfiles", "path", "size"]]
    assert out[0]["path"] == "data" and out[0]["nfiles"] == 2
    assert out[0]["size"] == sum(file.stat().st_size for file in workspace.data.rglob("*") if file.is_file())


def test_no_dataset_is_garbage_while_data_dvc_cannot_be_read(workspace):
    directory = commit(workspace).directory(workspace)
    published.name_datasets(workspace, [Store.of(workspace).find(directory)])
    stale = workspace.data / "clean" / "stale"
    artifacts = {directory: {}, stale: {}}
    assert garbage._in_git_history(workspace, artifacts) == {directory}
    text = (workspace.root / "data.dvc").read_text()
    (workspace.root / "data.dvc").write_text(f"<<<<<<< here\n{text}=======\n{text}>>>>>>> there\n")
    assert garbage._in_git_history(workspace, artifacts) == {directory, stale}
