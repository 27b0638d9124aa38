"""What people ask of finished models: where from, which is better, put it in service, take it back, make it again."""

import json

import pytest

from tests.end_to_end.conftest import STAGES, TASKS, copy_of, states
from tests.end_to_end.helpers import api_of

pytestmark = pytest.mark.slow

CHAMPION = "models:/genai-quantize@champion"


@pytest.fixture(scope="module")
def two(finished, prefect, tmp_path_factory):
    """A workspace with two versions of every fine-tuned model; the second one failed a gate."""
    home = copy_of(finished, tmp_path_factory.mktemp("two") / "home", PREFECT_API_URL=api_of(prefect))
    home.genai("run", "--preset", "smoke", "--set", "instruct.epochs=0.5", "--set",
               "promote.gates.int8-size.bound=0.01", "--set", "runtime.price_per_hour=3.6", fails=True)
    return home


def test_lineage_goes_back_to_the_sources_with_cost_and_commands(two):
    tree = two.genai("lineage").stdout
    for text in ("quantize genai-quantize/1 @champion", "tokenize", "source wikitext-2: CC BY-SA 3.0", "see above",
                 "cost ", "git checkout ", "dvc pull", "genai run --preset smoke --until quantize"):
        assert text in tree
    node = json.loads(two.genai("lineage", "models:/genai-quantize/2", "--json").stdout)
    digests = {(path.parent.name, json.loads((path / "manifest.json").read_text())["digest"])
               for stage in STAGES for path in two.artifacts(stage)}

    def check(part):
        assert (part["stage"], part["digest"]) in digests and part["key"] and part["commit"] and part["made"]
        assert part["cost"]["seconds"] > 0 and part["cost"]["energy_watt_hours"] > 0
        for parent in part["inputs"]:
            check(parent)

    check(node)
    assert node["cost"]["money"] == pytest.approx(node["cost"]["seconds"] / 1000, rel=1e-6)
    assert [part["stage"] for part in node["inputs"]] == ["rlhf", "tokenize", "clean"]
    assert "--set instruct.epochs=0.5" in node["commands"][2]
    mermaid = two.genai("lineage", "--mermaid").stdout
    assert mermaid.startswith("flowchart LR") and mermaid.count("-->") >= 15


def test_compare_tells_differences_from_noise_and_shows_samples(two, tmp_path):
    page = tmp_path / "page.html"
    output = two.genai("compare", "models:/genai-quantize/1", "models:/genai-quantize/2", "--page", str(page)).stdout
    assert "genai-quantize/1" in output and "within the noise" in output and "answered" not in output
    assert "<img" in page.read_text() and "bits_per_byte" in page.read_text()
    same = json.loads(two.genai("compare", CHAMPION, CHAMPION, "--json").stdout)
    assert all(line["difference"] == 0 for line in same["lines"])
    assert {line["verdict"] for line in same["lines"] if line["low"] is not None} == {"within the noise"}
    base = json.loads(two.genai("compare", "models:/genai-pretrain/1", "models:/genai-instruct/1", "--json").stdout)
    (line,) = [line for line in base["lines"] if line["figure"] == "bits_per_byte/test.wikitext-2"]
    assert line["verdict"] == "genai-pretrain/1 is better" and line["low"] > 0
    assert "a reward model is not in the table" in two.genai("compare", CHAMPION, "genai-reward/1", fails=True).stderr


def test_a_version_that_failed_its_gates_is_promoted_only_with_a_reason(two):
    refused = two.genai("promote", "models:/genai-quantize/2", fails=True).stderr
    assert "gate int8-size" in refused and "--override" in refused and "Traceback" not in refused
    two.genai("promote", "models:/genai-quantize/2", "--override", "the edge box has room")
    rows = {row["version"]: row["aliases"] for row in two.models() if row["stage"] == "quantize"}
    assert rows == {1: ["previous"], 2: ["champion", "candidate"]}
    assert "already" in two.genai("promote", "models:/genai-quantize/2", "--override", "again").stdout
    two.genai("rollback")
    rows = {row["version"]: row["aliases"] for row in two.models() if row["stage"] == "quantize"}
    assert rows == {1: ["champion"], 2: ["candidate", "previous"]}
    moves = json.loads(two.genai("models", "--history", "--json").stdout)
    assert [(move["stage"], move["before"], move["after"]) for move in moves] == [
        ("release", "", "1"), ("release", "1", "2"), ("release", "2", "1")]
    assert moves[1]["reason"] == "override: the edge box has room" and moves[2]["reason"] == "rollback"
    assert all(move["who"] and move["when"] and move["name"] and move["figures"] for move in moves)
    assert "nothing to go back to" in two.genai("rollback", "--family", "vae", fails=True).stderr


def test_until_only_and_from_run_what_they_say(two):
    done = two.genai("run", "--preset", "smoke", "--set", "pretrain.seed=3", "--until", "pretrain")
    assert list(states(done.stdout)) == TASKS[:5] and states(done.stdout)["pretrain"] == "Completed"
    refused = two.genai("run", "--preset", "smoke", "--set", "pretrain.seed=4", "--only", "instruct", fails=True)
    assert "only instruct: pretrain is not there (pretrain.seed:" in refused.stderr
    done = two.genai("run", "--preset", "smoke", "--set", "pretrain.seed=3", "--only", "instruct")
    assert {name for name, state in states(done.stdout).items() if state == "Completed"} == {"instruct"}
    done = two.genai("run", "--preset", "smoke", "--from", "quantize")
    assert {name for name, state in states(done.stdout).items() if state == "Completed"} == {
        "quantize", "evaluate", "promote"}


def test_a_sweep_shares_what_it_can_and_compares(two):
    output = two.genai("sweep", "pretrain.learning_rate=1e-3,5e-3", "--preset", "smoke", "--until", "pretrain").stdout
    assert output.count("pretrain: Completed in") == 2 and output.count("tokenize: Cached in") == 2
    assert "│ 0.001 " in output and "│ 0.005 " in output and "pretrain/bits_per_byte" in output
    import sqlite3

    with sqlite3.connect(two.root / "mlflow.db") as database:
        (parent,), = database.execute("select run_uuid from runs where name like 'sweep · smoke%'").fetchall()
        nested = database.execute("select count(*) from tags where key = 'mlflow.parentRunId' and value = ?",
                                  (parent,)).fetchone()
    assert nested == (2,)
    assert "write it as" in two.genai("sweep", "pretrain.learning_rate", fails=True).stderr


def test_garbage_is_only_what_nothing_refers_to(two):
    def unregistered_seed(number):
        return ("run", "--preset", "smoke", "--set", f"clean.min_words={number}", "--until", "clean")

    two.genai(*unregistered_seed(6))
    before = {path for stage in STAGES for path in two.artifacts(stage)}
    assert "nothing to remove" in two.genai("gc", "--yes").stdout      # a run of the last days used all of it
    output = two.genai("gc", "--yes", "--days", "0").stdout
    after = {path for stage in STAGES for path in two.artifacts(stage)}
    removed = before - after
    assert [path.parent.name for path in removed] == ["clean"] and "removed" in output
    assert two.run() == dict.fromkeys(TASKS, "Cached")
    assert two.genai("chat", "--question", "Hi", "--tokens", "3").returncode == 0


@pytest.mark.heavy
def test_a_model_is_made_again_from_its_records_to_the_same_digests(two):
    output = two.genai("reproduce", "models:/genai-instruct/1").stdout
    assert "models:/genai-instruct/1 is reproduced: every digest agrees" in output
    assert "pulled: data" in output and "NO" not in output


def test_mlflow_serves_a_registered_model_that_answers_a_chat(finished, tmp_path):
    import os
    import signal
    import subprocess
    import sys
    from pathlib import Path

    import httpx

    from tests.end_to_end.helpers import answers, free_port, wait_for

    port = free_port()
    command = [Path(sys.executable).with_name("mlflow"), "models", "serve", "-m", CHAMPION, "--env-manager", "local",
               "--host", "127.0.0.1", "--port", str(port)]
    bin_directory = Path(sys.executable).parent      # MLflow starts uvicorn by its bare name
    environment = {**finished.environment, "MLFLOW_TRACKING_URI": f"sqlite:///{finished.root / 'mlflow.db'}",
                   "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/ping"), 60)
        chat = [{"role": "user", "content": "Translate to Spanish: Good morning."}]
        for inputs in (["Hi", "Translate to Spanish: Good morning."], [json.dumps(chat)]):
            answer = httpx.post(f"http://127.0.0.1:{port}/invocations", timeout=60,
                                json={"inputs": inputs, "params": {"max_new_tokens": 8}})
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["predictions"]) == len(inputs)
        asked = finished.genai("chat", "--question", "Translate to Spanish: Good morning.", "--tokens", "8").stdout
        assert answer.json()["predictions"][0].strip() == asked.strip()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
