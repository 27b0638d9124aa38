"""The flow, with real Prefect, MLflow and DVC: what runs, what is cached, and what is registered."""

import sqlite3
from pathlib import Path

import pytest
import torch
import yaml

from tests.end_to_end.conftest import TASKS, copy_of

pytestmark = pytest.mark.slow

DATA = TASKS[:4]


def query(path, sql):
    with sqlite3.connect(path) as connection:
        return connection.execute(sql).fetchall()


def test_a_second_run_executes_nothing(finished, tmp_path):
    home = copy_of(finished, tmp_path / "home")
    before = home.models()
    assert home.run() == dict.fromkeys(TASKS, "Cached")
    assert home.models() == before
    names = query(home.root / ".genai/prefect/prefect.db",
                  "select state_name, count(*) from task_run group by state_name")
    assert dict(names)["Cached"] >= len(TASKS)


def test_every_stage_is_a_registered_version_with_its_lineage(finished):
    rows = {row["stage"]: row for row in finished.models()}
    assert set(rows) == {"pretrain", "instruct", "reward", "rlhf", "quantize"}
    md5 = yaml.safe_load((finished.root / "data.dvc").read_text())["outs"][0]["md5"]
    for row in rows.values():
        assert row["aliases"] == ["champion", "candidate"]
        assert row["dvc_md5"] == md5 and row["gates"] == "passed" and row["path"] and row["figures"]
    assert rows["rlhf"]["parent"] == "models:/genai-instruct/1"
    assert rows["quantize"]["parent"] == "models:/genai-rlhf/1"


def test_mlflow_has_a_parent_run_with_nested_runs_curves_and_the_dataset(finished):
    database = finished.root / "mlflow.db"
    parents = query(database, "select count(*) from tags where key = 'mlflow.parentRunId'")
    assert parents[0][0] == 10
    curves = dict(query(database, "select r.name, count(*) from metrics m join runs r using (run_uuid) "
                                  "where m.key = 'loss' group by r.name"))
    assert curves["pretrain"] == 64 and curves["rlhf"] == 3
    assert query(database, "select count(*) from datasets")[0][0] >= 1
    assert list((finished.root / "mlartifacts").rglob("report.html"))
    assert not [path for path in (finished.root / "mlartifacts").rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_a_registered_model_answers_through_pyfunc(finished):
    import subprocess
    import sys

    code = ("import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db');"
            "chat = mlflow.pyfunc.load_model('models:/genai-quantize@champion');"
            "print(len(chat.predict(['Hi', 'Translate to Spanish: Go.'], params={'max_new_tokens': 5})));"
            "judge = mlflow.pyfunc.load_model('models:/genai-reward@champion');"
            "print(isinstance(judge.predict(['A good film.'])[0], float))")
    done = subprocess.run([sys.executable, "-c", code], cwd=finished.root, env=finished.environment, text=True,
                          capture_output=True, check=False)
    assert done.stdout.split() == ["2", "True"], done.stderr


def test_changing_one_fine_tuning_parameter_runs_what_follows_and_nothing_before(copied):
    states = copied.run("instruct.epochs=0.5")
    assert [name for name, state in states.items() if state == "Cached"] == [*DATA, "pretrain"]
    assert copied.run("instruct.epochs=0.5") == dict.fromkeys(TASKS, "Cached")


@pytest.mark.parametrize("damage", ["delete", "flip"])
def test_only_a_missing_or_damaged_artifact_is_fetched_again(copied, damage):
    import shutil

    tokens = copied.artifact("tokenize")
    weights = copied.artifact("instruct") / "model.safetensors"
    before = weights.read_bytes()
    if damage == "delete":
        shutil.rmtree(tokens)
        weights.unlink()
    else:
        for file in (min(tokens.glob("train-*.bin")), weights):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
    states = copied.run()
    assert {name for name, state in states.items() if state != "Cached"} == {"tokenize", "instruct"}
    assert states["tokenize"] == "Fetched" and states["instruct"] == "Fetched"
    assert weights.read_bytes() == before


def test_a_second_workspace_pulls_the_data_and_hits(copied):
    """What a clone does: data.dvc and the remote are there, data/ is not."""
    import shutil
    import subprocess
    import sys

    for name in ("data", ".dvc/cache", ".genai/prefect", ".genai/records"):
        shutil.rmtree(copied.root / name)
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run([dvc, "pull", "-q"], cwd=copied.root, env=copied.environment, check=True)
    assert copied.run() == {**dict.fromkeys(TASKS, "Cached"), "version_data": "Completed"}


def test_forcing_a_stage_makes_the_same_bytes_and_no_new_version(copied):
    before = {path.name: path.read_bytes() for path in copied.artifact("rlhf").glob("*.safetensors")}
    versions = copied.models()
    states = copied.run(force="rlhf")
    assert [name for name, state in states.items() if state != "Cached"] == ["rlhf"]
    assert {path.name: path.read_bytes() for path in copied.artifact("rlhf").glob("*.safetensors")} == before
    assert copied.models() == versions


def test_a_gate_that_fails_ends_the_flow_and_keeps_the_champion(copied):
    done = copied.genai("run", "--preset", "smoke", "--set", "instruct.epochs=0.3", "--set",
                        "promote.gates.int8-size.bound=0.01", fails=True)
    assert "gate int8-size: quantize/int8/size_ratio is 0.2" in done.stderr and "wanted <= 0.0100" in done.stderr
    assert "Traceback" not in done.stderr
    rows = [row for row in copied.models() if row["stage"] == "quantize"]
    assert [row["gates"] for row in rows] == ["passed", "failed"]
    assert [row["aliases"] for row in rows] == [["champion"], ["candidate"]]


def test_transformers_reads_what_the_flow_made(finished):
    transformers = pytest.importorskip("transformers")
    from genai_core.export.model_directory import load_model

    for stage in ("pretrain", "instruct", "rlhf"):
        directory = finished.artifact(stage)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        chat = [{"role": "user", "content": "Translate to Spanish: Good morning."}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt",
                                            return_dict=True)["input_ids"]
        with torch.no_grad():
            assert (theirs(ids).logits - load_model(directory, torch.device("cpu"))(ids)).abs().max() < 1e-4
        assert (directory / "README.md").read_text().startswith(f"# {stage}")


def test_chat_answers(finished):
    asked = "Translate to Spanish: Good morning."
    one, two = (finished.genai("chat", "--question", asked, "--tokens", "8").stdout for _ in range(2))
    assert one == two
    local = finished.genai("chat", str(finished.artifact("quantize") / "int8"), "--question", asked, "--tokens", "8")
    assert local.stdout == one


def test_the_plan_of_a_finished_workspace_is_all_hits(finished):
    import json

    lines = json.loads(finished.genai("plan", "--preset", "smoke", "--json").stdout)
    assert {line["state"] for line in lines} == {"hit"}
    table = finished.genai("plan", "--preset", "smoke", "--set", "pretrain.seed=7").stdout
    assert "pretrain.seed: 0 → 7" in table and "depends on what pretrain makes" in table
