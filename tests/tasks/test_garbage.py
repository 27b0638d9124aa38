"""Retention frees disk in every place where bytes lie, and takes nothing that stays: real MLflow, real DVC."""

import json
import os
import shutil
import time

import mlflow
import pytest
from dvc.repo import Repo

from genai_core.errors import InputError
from tasks.execution.garbage import PLACES, Policy, bytes_there, find_garbage, remove
from tasks.store import locks, records
from tasks.store.artifacts import KeyParts, Store
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

WORDS = "many words " * 1000


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An empty database of MLflow, which takes seconds to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workspace(database, tmp_path, monkeypatch):
    shutil.copy(database, tmp_path)
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    monkeypatch.delenv("GENAI_DVC_REMOTE", raising=False)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(variable, f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracking.client.cache_clear()
    tracking.experiment_id.cache_clear()
    yield Workspace(tmp_path)
    tracking.client.cache_clear()
    tracking.experiment_id.cache_clear()


def made(workspace, stage, kind, text, **inputs):
    parts = KeyParts(stage, {"text": text[:9]}, inputs, {f"genai_core.stages.{stage}": "f00"})
    store = Store.of(workspace)
    directory = store.directory(stage, kind, parts.key)
    with store.new(directory, parts) as scratch:
        (scratch / "file").write_text(text + WORDS)
        artifact = store.commit(scratch, directory, parts, {})
    records.write_record(workspace, artifact, {"digest": artifact.digest})
    return artifact


def version_of_data(workspace, *datasets):
    """`data.dvc` as a run with these datasets leaves it, in DVC's cache and pushed to the remote of the workspace."""
    aside = workspace.root / "aside"
    aside.mkdir()
    others = [path for path in workspace.data.glob("*/*") if path.name not in [dataset.key for dataset in datasets]]
    for path in others:
        path.rename(aside / path.name)
    if not (workspace.root / ".dvc").is_dir():
        Repo.init(str(workspace.root), no_scm=True).close()
        with Repo(str(workspace.root)) as repository, repository.config.edit() as config:
            config["remote"] = {"own": {"url": str(workspace.hidden / "dvc-remote")}}
            config["core"]["remote"] = "own"
    with Repo(str(workspace.root)) as repository:
        md5 = repository.add(str(workspace.data))[0].outs[0].hash_info.value
        repository.push()
    for path in others:
        (aside / path.name).rename(path)
    aside.rmdir()
    folder = workspace.hidden / "records" / "version_data"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{'-'.join(dataset.key for dataset in datasets)}.json").write_text(json.dumps({"md5": md5}))
    return md5


def registered(workspace, artifact, md5, flow_run):
    client = tracking.client()
    model = client.create_logged_model(tracking.experiment_id(), name="pretrain")
    client.log_model_artifacts(model.model_id, str(artifact.directory(workspace)))
    if not client.search_registered_models("name='genai-pretrain'"):
        client.create_registered_model("genai-pretrain")
    tags = {"artifact.digest": artifact.digest, "cache.key": artifact.key, "dvc.md5": md5,
            "prefect.flow_run_id": flow_run}
    report = workspace.reports / flow_run / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(WORDS)
    return client.create_model_version("genai-pretrain", f"models:/{model.model_id}", tags=tags).version


@pytest.fixture
def two(workspace):
    """An old model with its data, and one in service with its own; beside them a model that no version holds, and files
    that a source named in MLflow."""
    chains = {}
    for name in ("old", "new"):
        data = made(workspace, "collect", "dataset", name)
        model = made(workspace, "pretrain", "model", name, collect=data.digest)
        md5 = version_of_data(workspace, data)
        chains[name] = data, model, registered(workspace, model, md5, f"flow-run-{name}")
    tracking.client().set_registered_model_alias("genai-pretrain", "champion", chains["new"][2])
    (workspace.sources / "0123").mkdir(parents=True)
    (workspace.sources / "0123" / "feedback.jsonl").write_text(WORDS)
    nobodys = tracking.client().create_logged_model(tracking.experiment_id(), name="pretrain")
    tracking.client().log_model_artifacts(nobodys.model_id, str(chains["old"][1].directory(workspace)))
    return chains


def test_what_is_not_kept_goes_from_every_place_and_what_is_in_service_is_whole(workspace, two):
    policy = Policy(days=0, keep=0)
    (old_data, old_model, _), (new_data, new_model, new_version) = two["old"], two["new"]
    before = bytes_there(workspace)
    listed = find_garbage(workspace, policy)
    assert {entry.place for entry in listed} == set(PLACES) - {"checkpoints"}
    remove(workspace, policy, listed)
    after = bytes_there(workspace)
    for place in set(PLACES) - {"checkpoints"}:
        freed = sum(entry.bytes for entry in listed if entry.place == place)
        assert len(WORDS) / 2 < freed and after[place] == before[place] - freed, place

    assert not old_data.directory(workspace).exists() and not old_model.directory(workspace).exists()
    store = Store(workspace)
    assert store.find(new_data.directory(workspace)) == new_data and store.find(new_model.directory(workspace))
    (left,) = tracking.client().search_model_versions("name='genai-pretrain'")
    assert left.version == new_version
    copy = mlflow.artifacts.download_artifacts(f"models:/genai-pretrain/{new_version}")
    assert "new" in (workspace.root / copy / "file").read_text()
    assert [path.parent.name for path in workspace.reports.glob("*/report.html")] == ["flow-run-new"]
    # the data of the champion comes back from the remote alone
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    shutil.rmtree(workspace.data)
    with Repo(str(workspace.root)) as repository:
        repository.pull()
    assert Store(workspace).find(new_data.directory(workspace)) == new_data


def test_the_newest_and_the_young_stay(workspace, two):
    for policy in (Policy(days=0, keep=2), Policy(days=1, keep=0)):
        places = {entry.place for entry in find_garbage(workspace, policy)}
        assert not places & {"artifacts", "reports", "DVC cache", "DVC remote"}, policy


def test_what_a_release_that_stays_names_stays(workspace, two):
    client = tracking.client()
    client.create_registered_model("genai-release")
    release = client.create_model_version("genai-release", "release", tags={
        "version.pretrain": f"models:/genai-pretrain/{two['old'][2]}"})
    client.set_registered_model_alias("genai-release", "previous", release.version)
    going = {entry.place for entry in find_garbage(workspace, Policy(days=0, keep=0))}
    assert not going & {"artifacts", "reports", "DVC remote"}


def test_files_that_a_dataset_that_stays_was_collected_from_stay(workspace, two):
    store = Store.of(workspace)
    folder = workspace.sources / ("ab" * 16)
    folder.mkdir()
    (folder / "feedback.jsonl").write_text(WORDS)
    path = f"{folder.relative_to(workspace.root).as_posix()}/feedback.jsonl"
    parts = KeyParts("collect", {"collect": {"sources": {"mine": {"paths": [path]}}}}, {}, {})
    directory = store.directory("collect", "dataset", parts.key)
    with store.new(directory, parts) as scratch:
        (scratch / "file").write_text(WORDS)
        dataset = store.commit(scratch, directory, parts, {})
    going = [entry.path for entry in find_garbage(workspace, Policy(days=0, keep=0)) if entry.place == "sources"]
    assert folder in going, "no version that stays comes from it"
    model = made(workspace, "pretrain", "model", "fed", collect=dataset.digest)
    version = registered(workspace, model, "", "flow-run-fed")
    tracking.client().set_registered_model_alias("genai-pretrain", "champion", version)
    going = [entry.path for entry in find_garbage(workspace, Policy(days=0, keep=0)) if entry.place == "sources"]
    assert going == [workspace.sources / "0123"]


def test_a_remote_that_others_may_use_is_touched_only_when_asked_for(workspace, two, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "remote"
    (workspace.hidden / "dvc-remote").rename(elsewhere)
    monkeypatch.setenv("GENAI_DVC_REMOTE", str(elsewhere))
    assert "DVC remote" not in {entry.place for entry in find_garbage(workspace, Policy(days=0, keep=0))}
    asked_for = find_garbage(workspace, Policy(days=0, keep=0, shared=True))
    assert elsewhere in [entry.path for entry in asked_for if entry.place == "DVC remote"]


def test_what_a_run_took_between_listing_and_removing_stays(workspace):
    data = made(workspace, "collect", "dataset", "unused")
    record = workspace.hidden / "records" / "collect" / f"{data.key}.json"
    os.utime(record, (time.time() - 3 * 86400,) * 2)
    policy = Policy(days=1, keep=0)
    (listed,) = find_garbage(workspace, policy)
    with locks.lock(workspace.hidden / "locks" / "runs.lock", "a run", shared=True), pytest.raises(
            InputError, match="a run is going on"):
        remove(workspace, policy, [listed])
    records.mark_used(workspace, data)
    assert remove(workspace, policy, [listed]) == [] and Store(workspace).find(data.directory(workspace))


def test_what_somebody_versioned_by_hand_stays(workspace, two):
    own, folder = workspace.root / "mine.txt", workspace.root / "papers"
    own.write_text("mine")
    folder.mkdir()
    (folder / "paper.txt").write_text("a paper")
    with Repo(str(workspace.root)) as repository:
        for path in (own, folder):
            repository.add(str(path))
    for file in (workspace.root / ".dvc" / "cache").rglob("*"):
        os.utime(file, (time.time() - 30 * 86400,) * 2)
    policy = Policy(days=0, keep=0)
    remove(workspace, policy, find_garbage(workspace, policy))
    own.unlink()
    shutil.rmtree(folder)
    with Repo(str(workspace.root)) as repository:
        repository.checkout([f"{own}.dvc", f"{folder}.dvc"], force=True)
    assert own.read_text() == "mine" and (folder / "paper.txt").read_text() == "a paper"


def test_a_registry_that_knows_no_model_here_judges_none(workspace, two, database, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other") / "mlflow.db"
    shutil.copy(database, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{other}")
    tracking.client.cache_clear()
    with pytest.raises(InputError, match=r"knows none of the models here.*is MLFLOW_TRACKING_URI right\?"):
        find_garbage(workspace, Policy(days=0, keep=0))
