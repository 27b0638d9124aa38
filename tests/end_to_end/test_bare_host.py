"""A host that has nothing but the commit and the settings: what it can tell, fetch and refuse."""

import json
import shutil

import mlflow
import pytest

from tests.end_to_end.conftest import STAGES, TASKS, Home, copy_of

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


@pytest.fixture
def bare(finished, tmp_path):
    """A workspace without a file, beside the registry and the remote that another workspace filled."""
    shutil.copy(finished.root / "mlflow.db", tmp_path / "mlflow.db")
    (tmp_path / "tmp").mkdir()
    home = Home(tmp_path / "bare", {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
                                    "GENAI_DVC_REMOTE": str(finished.root / ".genai" / "dvc-remote"),
                                    "TMPDIR": str(tmp_path / "tmp")})
    home.root.mkdir()
    return home


def test_it_tells_of_everything_and_fetches_nothing(bare, finished):
    lines = json.loads(bare.genai("plan", "--preset", "smoke", "--json").stdout)
    assert [(line["stage"], line["state"]) for line in lines] == [(stage, "fetch") for stage in STAGES]
    assert {line["stage"]: line["digest"] for line in lines} == finished.digests()

    there, here = (json.loads(home.genai("lineage", "--json").stdout) for home in (finished, bare))
    assert here == there and here["inputs"][0]["stage"] == "rlhf"
    held = [file for file in bare.root.rglob("*") if file.is_file() and file.suffix in (".safetensors", ".parquet")]
    assert not held and not (bare.root / "models").exists() and not list((bare.root.parent / "tmp").glob("genai-*"))

    compared = [home.genai("compare", "genai-instruct/1", "genai-rlhf/1", "--json").stdout for home in (finished, bare)]
    assert compared[0] == compared[1] and json.loads(compared[0])["lines"]


def test_it_fetches_everything_and_makes_nothing(bare, finished):
    states = bare.run()
    assert {name for name, state in states.items() if state == "Completed"} == {"version_data"}
    assert list(states) == TASKS and bare.digests() == finished.digests()
    assert (bare.root / "data.dvc").read_text() == (finished.root / "data.dvc").read_text()
    assert [row["version"] for row in bare.models()] == [1] * 5
    record = json.loads((next((finished.root / ".genai/records/evaluate").glob("*.json"))).read_text())
    assert json.loads((next((bare.root / ".genai/records/evaluate").glob("*.json"))).read_text()) == record


def test_it_chats_with_one_model_that_it_fetched_whole(bare, finished):
    asked = ("chat", "--question", "Hi", "--tokens", "4")
    assert bare.genai(*asked).stdout == finished.genai(*asked).stdout
    (fetched,) = (bare.root / "models").glob("*/*")
    assert fetched.name == finished.artifact("quantize").name and not list((bare.root.parent / "tmp").glob("genai-*"))
    weights = max(fetched.rglob("*.gguf"), key=lambda file: file.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert bare.genai(*asked).stdout.splitlines()[-1:] == finished.genai(*asked).stdout.splitlines()[-1:]
    assert bare.digests() == {"quantize": finished.digests()["quantize"]}      # it was fetched again


def test_no_tag_of_a_registry_leads_out_of_the_workspace(bare, finished):
    client = mlflow.MlflowClient(bare.more["MLFLOW_TRACKING_URI"], bare.more["MLFLOW_TRACKING_URI"])
    asked = ("chat", "--question", "Hi", "--tokens", "4", "models:/genai-quantize/1")
    client.set_model_version_tag("genai-quantize", "1", "path", str(finished.artifact("pretrain")))
    bare.genai(*asked)
    assert [path.parent.name for path in (bare.root / "models").glob("*/*")] == ["quantize"]
    for key in ("../../../trap", "/etc"):
        client.set_model_version_tag("genai-quantize", "1", "cache.key", key)
        refused = bare.genai(*asked, fails=True)
        assert "name no stage and key" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_a_workspace_that_was_alone_joins_the_servers_of_a_team(finished, tmp_path):
    home = copy_of(finished, tmp_path / "alone", MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'team.db'}",
                   GENAI_DVC_REMOTE=str(tmp_path / "remote"))
    assert "set MLFLOW_TRACKING_URI" in Home(home.root).genai("publish", fails=True).stderr
    record = next((home.root / ".genai" / "records" / "reward").glob("*.json"))
    made = json.loads(record.read_text())
    next((home.root / ".genai" / "records" / "quantize").glob("*.json")).unlink()      # nobody knows its maker
    told = [home.genai("publish").stdout for _ in range(2)]
    assert all("10 artifacts are published" in words for words in told)
    (own,) = json.loads(Home(home.root).genai("releases", "--json").stdout)
    (release,) = json.loads(home.genai("releases", "--json").stdout)
    assert f"release {own['name']}: in service as {release['name']}" in told[0] and "in service as" not in told[1]
    assert release["state"] == "in service" and set(release["versions"].values()) == {"1"}
    rows = {row["stage"]: row for row in home.models()}
    assert [row["version"] for row in rows.values()] == [1] * 5
    assert rows["rlhf"]["parent"] == "models:/genai-instruct/1" and rows["rlhf"]["commit"] == made["commit"]
    assert rows["quantize"]["commit"] == ""

    client = mlflow.MlflowClient(home.more["MLFLOW_TRACKING_URI"], home.more["MLFLOW_TRACKING_URI"])
    run = client.get_run(json.loads(record.read_text())["mlflow_run_id"])
    assert run.data.tags["copied.from"] == made["mlflow_run_id"] and run.data.params
    assert len(client.get_metric_history(run.info.run_id, "loss")) > 1
    assert "config.yaml" in [file.path for file in client.list_artifacts(run.info.run_id)]
    assert set(home.run().values()) == {"Cached"}
    other = Home(tmp_path / "other", home.more)
    other.root.mkdir()
    assert set(other.run().values()) == {"Fetched", "Completed"} and other.digests() == finished.digests()
