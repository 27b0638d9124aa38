"""A registry that was made before the code had rooms: its versions still load, chat, compare and serve."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.store.workspace import REPOSITORY
from tests.end_to_end.conftest import Home
from tests.end_to_end.helpers import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

COMMIT = "ac5d79b"
"""The last commit before the move: manifests held whole modules, configs no kind."""


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A workspace that the code of that commit filled: the language model and a family."""
    code, home = tmp_path_factory.mktemp("code"), Home(tmp_path_factory.mktemp("home"))
    archive = subprocess.run(["git", "-C", str(REPOSITORY), "archive", COMMIT], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"needs the history of the repository back to {COMMIT}")
    subprocess.run(["tar", "x", "-C", str(code)], input=archive.stdout, check=True)
    for family in ([], ["--family", "vae"]):
        subprocess.run([sys.executable, "-m", "flows.command", "run", *family, "--preset", "smoke"], cwd=code,
                       env=clean_environment(GENAI_HOME=str(home.root), PYTHONPATH=str(code)), check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return home


def test_its_versions_are_listed_and_answer(old, tmp_path):
    rows = {row["stage"]: row for row in old.models()}
    assert {"pretrain", "instruct", "reward", "rlhf", "quantize", "vae"} <= set(rows)
    assert all(row["figures"] and row["path"] for row in rows.values())
    assert old.genai("chat", "--question", "Hi", "--tokens", "3").stdout.strip()
    out = tmp_path / "digits.png"
    old.genai("generate", "vae", "--count", "2", "--out", str(out))
    assert out.read_bytes().startswith(b"\x89PNG")


def test_they_compare_and_tell_where_they_come_from(old):
    compared = json.loads(old.genai("compare", "genai-pretrain/1", "genai-instruct/1", "--json").stdout)
    assert {"bits_per_byte", "sentiment_accuracy"} <= {line["figure"] for line in compared["lines"]}
    node = json.loads(old.genai("lineage", "--json").stdout)
    assert [part["stage"] for part in node["inputs"]] == ["rlhf", "tokenize"]
    assert node["key"] and node["cost"]["seconds"]


def test_mlflow_serves_them(old):
    code = (f"import mlflow; mlflow.set_tracking_uri('sqlite:///{old.root / 'mlflow.db'}');"
            "chat = mlflow.pyfunc.load_model('models:/genai-quantize@champion');"
            "print(len(chat.predict(['Hi'], params={'max_new_tokens': 3})))")
    done = subprocess.run([sys.executable, "-c", code], env=old.environment, cwd=old.root, capture_output=True,
                          text=True, check=False)
    assert done.stdout.split()[-1:] == ["1"], done.stderr


def test_the_config_of_a_run_of_before_names_its_own_files(old, tmp_path):
    """What reproduce copies of the user's files is read from the stored config, fields of before included."""
    import mlflow

    from flows.cli.reproduce import _copy_own_files
    from tasks.store.workspace import Workspace

    client = mlflow.MlflowClient(f"sqlite:///{old.root / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'train-llm'")
    stored = [next(Path(old.root).rglob(f"{run.info.run_id}/artifacts/config.yaml"))
              for run in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" not in run.data.tags]
    assert any("architecture: transformer" in path.read_text() for path in stored)
    (old.root / "texts").mkdir()
    (old.root / "texts" / "a.txt").write_text("own")
    for number, path in enumerate(stored):
        config = yaml.safe_load(path.read_text())
        config["collect"]["sources"]["own"] = {"kind": "files", "paths": ["texts/*.txt"], "enabled": True}
        preset = tmp_path / f"{number}.yaml"
        preset.write_text(yaml.safe_dump(config))
        _copy_own_files(preset, Workspace(old.root), Workspace(tmp_path / str(number)))
        assert (tmp_path / str(number) / "texts" / "a.txt").read_text() == "own"


def test_a_run_makes_everything_once_more_under_new_keys_and_then_finds_it(old):
    why = json.loads(old.genai("plan", "--preset", "smoke", "--json").stdout)[0]["why"]
    assert "by this code, which has moved" in why
    states = old.run(until="clean")
    assert states == {"collect": "Completed", "clean": "Completed"}
    assert old.run(until="clean") == {"collect": "Cached", "clean": "Cached"}
