"""`dvc pull`: one clone runs, pushes and commits data.dvc; another pulls and has every dataset, byte for byte."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.store.workspace import REPOSITORY
from tests.end_to_end.conftest import TASKS, states
from tests.end_to_end.helpers import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.fixture
def origin(tmp_path):
    """The working tree as a repository of its own, so that uncommitted changes are tested too."""
    folder = tmp_path / "origin"
    folder.mkdir()
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True,
                           text=True, check=True).stdout.splitlines()
    existing = [name for name in files if (REPOSITORY / name).is_file()]
    subprocess.run(["cp", "--parents", *existing, str(folder)], cwd=REPOSITORY, check=True)
    git(folder, "init", "-q")
    git(folder, "config", "receive.denyCurrentBranch", "updateInstead")
    commit(folder, "start")
    return folder


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=folder, check=True,
                   capture_output=True)


def commit(folder, message):
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)


def genai(clone, tmp_path, *arguments):
    """The clone's own code, with the clone as its workspace and a user's home of its own for the DVC remote."""
    environment = clean_environment(PYTHONPATH=str(clone), HOME=str(tmp_path / "user"),
                                    GENAI_CACHE=str(Path.home() / ".cache" / "genai-core"))
    done = subprocess.run([sys.executable, "-m", "flows.cli.command", *arguments], cwd=clone, env=environment,
                          text=True, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_one_clone_pushes_another_pulls(origin, tmp_path):
    (tmp_path / "user").mkdir()
    for name in ("a", "b"):
        git(tmp_path, "clone", "-q", str(origin), name)
    a, b = tmp_path / "a", tmp_path / "b"
    arguments = ("run", "--preset", "smoke", "--until", "pretrain")
    assert states(genai(a, tmp_path, *arguments)) == dict.fromkeys(TASKS[:5], "Completed")
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=a, capture_output=True, text=True, check=True).stdout
    assert changed.split() == ["M", "data.dvc"]      # nothing but the name of the data is new to git
    commit(a, "new data")
    git(a, "push", "-q")

    git(b, "pull", "-q")
    named = yaml.safe_load((b / "data.dvc").read_text())["outs"][0]["md5"]
    dvc = Path(sys.executable).with_name("dvc")
    environment = clean_environment(HOME=str(tmp_path / "user"), DVC_NO_ANALYTICS="1")
    subprocess.run([dvc, "pull", "-q"], cwd=b, env=environment, check=True)
    found = states(genai(b, tmp_path, *arguments))
    assert [found[name] for name in ("collect", "clean", "tokenize")] == ["Cached"] * 3
    assert found["pretrain"] == "Completed"
    assert yaml.safe_load((b / "data.dvc").read_text())["outs"][0]["md5"] == named
