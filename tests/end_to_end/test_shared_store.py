"""A real S3 server between hosts: a machine that is lost, a store that goes away, one that refuses."""

import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.store import dvc, published
from tasks.store.workspace import Workspace
from tests.end_to_end.conftest import Home, states
from tests.end_to_end.helpers import S3, api_of, wait_for
from tests.tasks.test_dvc import commit

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.fixture
def s3(tmp_path):
    server = S3(tmp_path / "s3").start()
    yield server
    server.kill()


@pytest.fixture
def hosts(s3, prefect, tmp_path):
    """Two bare hosts with the same settings."""
    settings = {"GENAI_DVC_REMOTE": "s3://team/dvc", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
                "PREFECT_API_URL": api_of(prefect), **s3.credentials}
    homes = [Home(tmp_path / name, settings) for name in ("ann", "bob")]
    for home in homes:
        home.root.mkdir()
    return homes


def until(process, line: str) -> None:
    for said in process.stdout:
        if said.strip() == line:
            return
    raise AssertionError(f"it never said {line!r}")


def test_a_training_whose_machine_is_lost_goes_on_elsewhere_to_the_same_weights(hosts, s3):
    ann, bob = hosts
    arguments = ("run", "--preset", "smoke", "--until", "pretrain", "--set", "pretrain.tokens=1000000", "--set",
                 "runtime.checkpoint_seconds=0.5")
    process = ann.start(*arguments)
    wait_for(lambda: list((s3.bucket / "dvc" / "genai" / "checkpoints").glob("*/*/step-*.json")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shutil.rmtree(ann.root)

    done = bob.genai(*arguments).stdout
    found = {name: state for name, state in states(done).items() if state == "Fetched"}
    assert set(found) == {"collect", "clean", "tokenize"}
    (step,) = re.findall(r"pretrain: continuing from the checkpoint at step (\d+) of", done)
    assert int(step) > 0
    assert not list((s3.bucket / "dvc" / "genai" / "checkpoints").rglob("*.safetensors"))
    continued = bob.digests()["pretrain"]
    assert "continuing" not in bob.genai(*arguments, "--force", "pretrain").stdout
    assert bob.digests()["pretrain"] == continued


def test_a_store_that_goes_away_for_some_seconds_costs_nothing(hosts, s3, monkeypatch):
    ann, bob = (Workspace(home.root) for home in hosts)
    for name, value in hosts[0].more.items():
        monkeypatch.setenv(name, value)
    artifact = commit(ann)
    with ThreadPoolExecutor(1) as pool:
        s3.kill()
        named = pool.submit(published.name_datasets, ann, [artifact])
        time.sleep(5)
        assert not named.done()
        s3.start()
        assert named.result(timeout=120) == dvc.current_md5(ann)
    assert published.fetch(bob, artifact.stage, "dataset", artifact.key) == artifact


def test_a_store_that_stays_away_is_said_in_one_line_and_the_next_run_completes(hosts, s3):
    ann, bob = hosts
    process = ann.start("run", "--preset", "smoke", "--until", "pretrain")
    until(process, "▶ tokenize")
    s3.kill()
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1
    (line,) = [line for line in output.splitlines() if line.startswith("genai: ")]
    assert "the remote s3://team/dvc does not answer" in line and "what was made is intact" in line
    assert "Traceback" not in output
    s3.start()
    again = ann.run(until="pretrain")
    assert [again[name] for name in ("collect", "clean", "version_data")] == ["Cached", "Cached", "Completed"]
    assert bob.run(until="collect") == {"collect": "Fetched"}


def test_a_store_that_refuses_says_so_at_once(hosts):
    ann, _ = hosts
    stranger = Home(ann.root, {**ann.more, "AWS_SECRET_ACCESS_KEY": "wrong-secret"})
    refused = stranger.genai("run", "--preset", "smoke", "--until", "collect", fails=True)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("genai: ")]
    assert "the remote s3://team/dvc refuses" in line and "Traceback" not in refused.stdout + refused.stderr
    assert "wrong-secret" not in refused.stdout + refused.stderr
