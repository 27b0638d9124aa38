"""The registry under several writers at once: what they set is there, and none of them fails."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import mlflow
import pytest

from tasks.registry import versions
from tasks.store.artifacts import Artifact
from tasks.tracking import client as tracking

WRITERS = 4
ROUNDS = 25


@pytest.fixture
def version(tmp_path, monkeypatch):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(tracking, "client", lambda: client)
    client.create_registered_model("genai-pretrain")
    return client.create_model_version("genai-pretrain", source=str(tmp_path)).version


def test_writers_of_one_new_tag_or_alias_that_meet_all_succeed(version):
    """Flows with the same keys come to the same verdict on the same version, now and then in the same moment."""
    together = Barrier(WRITERS, timeout=30)

    def write(number: int) -> None:
        for attempt in range(ROUNDS):
            together.wait()
            versions.tag("pretrain", str(version), {f"gates.{attempt}": "passed"})
            versions.set_alias("pretrain", f"alias-{attempt}", str(version))

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    client = tracking.client()
    assert client.get_model_version("genai-pretrain", version).tags == {f"gates.{n}": "passed" for n in range(ROUNDS)}
    aliases = client.get_registered_model("genai-pretrain").aliases
    assert aliases == {f"alias-{n}": version for n in range(ROUNDS)}


def test_two_hosts_that_register_the_same_model_at_once_keep_the_first_and_neither_fails(version, monkeypatch):
    """Both have made a version, both see the two, and both take the later one away."""
    artifact = Artifact(stage="pretrain", key="k" * 16, digest="d", path="models/pretrain/k")
    tags = {"cache.key": artifact.key, "artifact.digest": artifact.digest}
    made = [tracking.client().create_model_version("genai-pretrain", source="x", tags=tags).version for _ in range(2)]
    listed, what_both_saw = versions._versions, versions._versions("pretrain", *tags.values())
    kept = []
    for number in made:
        answers = iter([what_both_saw])
        monkeypatch.setattr(versions, "_versions", lambda *asked, first=answers: next(first, None) or listed(*asked))
        kept.append(versions._only_one("pretrain", artifact, str(number)))
    assert kept == [str(made[0])] * 2
    assert [found.version for found in listed("pretrain", *tags.values())] == [made[0]]
    assert versions.find_version("pretrain", *tags.values()).version == made[0]
