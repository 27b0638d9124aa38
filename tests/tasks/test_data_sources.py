"""Sources that MLflow holds: files of a registered version, and what people said of logged answers. On a real server.
"""

import json

import mlflow
import pytest
from mlflow.entities import AssessmentSource
from typer.testing import CliRunner

from flows.cli.command import app
from genai_core.context import Context
from genai_core.data.sources.shapes.rows import recognise
from genai_core.errors import InputError
from genai_core.labelling.files import read_rows
from genai_core.labelling.labels import LabelFiles
from genai_core.stages import collect
from tasks.config import load_config
from tasks.language_model import collect as collect_stage
from tasks.store.key import key_parts
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking
from tasks.tracking.feedback import _ASKED, _SAID, _text_of, verdicts_as_labels
from tests.end_to_end.helpers import mlflow_server
from tests.genai_core.bases import published

MODEL = "samples-of-somebody"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    running = mlflow_server(folder)
    yield running
    running.kill()


@pytest.fixture
def workspace(server, tmp_path, monkeypatch):
    """A workspace of a process that may read its own files alone, with the server's MLflow."""
    return enter(tmp_path / "home", server, monkeypatch)


def enter(root, server, monkeypatch):
    root.mkdir()
    monkeypatch.setenv("GENAI_HOME", str(root))
    monkeypatch.delenv("GENAI_DATA_ROOTS", raising=False)
    ask(server.health.removesuffix("/health"), monkeypatch)
    tracking.client()
    return Workspace(root)


def ask(address, monkeypatch):
    """From here on the MLflow at an address, that of the workspace where there is none: a client leaves its own in the
    environment."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(variable, address)
        if not address:
            monkeypatch.delenv(variable)
    tracking.client.cache_clear()


@pytest.fixture(autouse=True)
def forget_the_client():
    yield
    tracking.client.cache_clear()


def register(texts, name=MODEL):
    """A version whose files are `deep/samples.jsonl` with these texts, and a note."""
    mlflow.set_experiment("registered")
    with mlflow.start_run() as run:
        mlflow.log_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "data/deep/samples.jsonl")
        mlflow.log_text("what it is", "data/NOTE.txt")
    client = tracking.client()
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    return str(client.create_model_version(name, f"{run.info.artifact_uri}/data", run.info.run_id).version)


def config(path, **more):
    source = {"kind": "files", "paths": [path], "licence": "own", "content": "documents", **more}
    return load_config("smoke", "", {"collect.replace_sources": "all_but_text", "collect.sources.mine": source})


def collected(taken, workspace, recorder):
    """The data card's entry and the rows of the source `mine`."""
    alone = taken.collect.model_copy(update={"sources": {"mine": taken.collect.sources["mine"]}})
    alone = alone.model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
    out = workspace.root / "out"
    out.mkdir()
    collect.run(alone, out_dir=out, context=Context(workspace.root, recorder, workspace.root))
    return json.loads((out / "data_card.json").read_text())["mine"]


def key_of(taken, workspace):
    return key_parts(collect_stage, taken, {}, workspace).key


def test_a_file_of_a_registered_version_is_data(workspace, recorder):
    version = register(["one fine day", "two fine days"])
    taken = config(f"models:/{MODEL}/{version}/deep/samples.jsonl")
    (path,) = taken.collect.sources["mine"].paths
    assert path.startswith(".genai/sources/") and path.endswith("/samples.jsonl"), "nothing of this host is in it"
    card = collected(taken, workspace, recorder)
    assert card["rows"] == 2 and card["origin"] == f"models:/{MODEL}/{version}/deep/samples.jsonl"


def test_all_files_of_a_version_are_data_without_a_path(workspace, recorder):
    version = register(["one fine day"])
    assert collected(config(f"models:/{MODEL}/{version}"), workspace, recorder)["rows"] == 2
    assert not list(workspace.scratch.iterdir())


def test_a_registered_version_is_a_base_and_one_that_holds_no_model_is_refused(workspace, prose, tmp_path):
    base = published(tmp_path / "base", "qwen3", prose[:10])
    mlflow.set_experiment("registered")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(base), "model/artifacts/0123")
    client = tracking.client()
    client.create_registered_model("bases")
    number = client.create_model_version("bases", f"{run.info.artifact_uri}/model", run.info.run_id).version
    client.set_registered_model_alias("bases", "champion", number)
    for address in (f"models:/bases/{number}", "models:/bases@champion"):
        taken = load_config("smoke", "", {"base.source": address})
        assert taken.base.origin == address and taken.base.source.startswith(".genai/sources/")
        assert (workspace.root / taken.base.source / "model.safetensors").is_file()
        assert "adopt" in taken.stage_names
    with pytest.raises(InputError, match=r"base\.source: models:/.*: this version is no language model"):
        load_config("smoke", "", {"base.source": f"models:/{MODEL}/{register(['one'])}"})


def test_the_key_depends_on_the_files_and_not_on_the_host(workspace, server, tmp_path, monkeypatch):
    client = tracking.client()
    first = register(["one fine day"])
    client.set_registered_model_alias(MODEL, "ours", first)
    address = f"models:/{MODEL}@ours/deep/samples.jsonl"
    before = key_of(config(address), workspace)
    elsewhere = enter(tmp_path / "another", server, monkeypatch)
    assert key_of(config(address), elsewhere) == before
    client.set_registered_model_alias(MODEL, "ours", register(["one fine day"]))
    assert key_of(config(address), elsewhere) == before, "another version with the same bytes"
    client.set_registered_model_alias(MODEL, "ours", register(["another day"]))
    assert key_of(config(address), elsewhere) != before


def test_damaged_files_are_brought_again(workspace):
    address = f"models:/{MODEL}/{register(['one fine day'])}/deep/samples.jsonl"
    before = key_of(config(address), workspace)
    workspace.root.joinpath(config(address).collect.sources["mine"].paths[0]).write_text("damaged")
    assert key_of(config(address), workspace) == before


@pytest.mark.parametrize(("path", "reason"), [
    (f"models:/{MODEL}/999", "MLflow has no such model, version or alias"),
    (f"models:/{MODEL}@nobody", "MLflow has no such model, version or alias"),
    ("models:/no-such-model/1", "MLflow has no such model, version or alias"),
    (f"models:/{MODEL}/1/absent.jsonl", "version 1 has no such file or folder"),
    (f"models:/{MODEL}/1/deep/absent.jsonl", "version 1 has no such file or folder"),
    (f"models:/{MODEL}/1/../../secret.txt", "no plain path of a file"),
    (f"models:/{MODEL}/1/%2e%2e/secret.txt", "no plain path of a file"),
    (f"models:/{MODEL}/1//etc/passwd", "no plain path of a file"),
    (f"models:/{MODEL}", "write it as models:/NAME/VERSION"),
    ("feedback:/", "write it as feedback:/EXPERIMENT"),
    ("feedback:/no such", "MLflow has no such experiment"),
    ("feedback:/registered", "no feedback in the experiment"),
])
def test_what_is_not_there_is_one_line_that_names_the_source(workspace, path, reason):
    register(["one fine day"])
    with pytest.raises(InputError, match=rf"^collect\.sources\.mine\.paths.*{reason}") as caught:
        config(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_a_version_whose_files_lie_elsewhere_on_this_machine_is_not_read(tmp_path, monkeypatch):
    """Whoever registers a version in a database says where its files are."""
    root = tmp_path / "home"
    root.mkdir()
    monkeypatch.setenv("GENAI_HOME", str(root))
    monkeypatch.delenv("GENAI_DATA_ROOTS", raising=False)
    ask("", monkeypatch)
    with pytest.raises(InputError, match="there is no MLflow yet"):
        config("models:/stolen/1")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.txt").write_text("swordfish")
    client = tracking.client()
    client.create_registered_model("stolen")
    client.create_model_version("stolen", (tmp_path / "secret").as_uri())
    with pytest.raises(InputError, match="is outside what this process may read"):
        config("models:/stolen/1/a.txt")


def test_a_server_that_is_away_is_told_without_its_password(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ask("http://me:swordfish@127.0.0.1:9", monkeypatch)
    with pytest.raises(InputError, match=r"mine.*models:/a/1: MLflow does not answer") as caught:
        config("models:/a/1")
    assert "swordfish" not in str(caught.value) and "\n" not in str(caught.value)


def answered(experiment, request, response, *values, source_type="HUMAN"):
    """Log an answer as an application does, and what somebody said of it."""
    mlflow.set_experiment(experiment)
    span = mlflow.start_span_no_context("chat", inputs=request)
    span.end(outputs=response)
    mlflow.flush_trace_async_logging()
    for value in values:
        mlflow.log_feedback(trace_id=span.trace_id, name="liked", value=value,
                            source=AssessmentSource(source_type, "somebody@example.org"))


CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
HELLO = {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}


def test_verdicts_that_people_logged_teach_a_reward_model(workspace, recorder):
    answered("verdicts", CHAT, HELLO, True)
    answered("verdicts", {"question": "Hi", "temperature": 1}, "Go away", "thumbs_down")
    answered("verdicts", "Hi", {"answer": "Hello you"}, "up", "a remark in words")
    answered("verdicts", "Hi", "judged by a model alone", True, source_type="LLM_JUDGE")
    answered("verdicts", "Hi", "nobody said anything")
    taken = config("feedback:/verdicts", content="auto")
    (path,) = taken.collect.sources["mine"].paths
    rows = [json.loads(line) for line in (workspace.root / path).read_text().splitlines()]
    assert [(row["completion"], row["label"]) for row in rows] == [
        ("Hello", True), ("Go away", False), ("Hello you", True)]
    assert rows[0]["prompt"] == CHAT["messages"] and "somebody" not in json.dumps(rows)
    assert taken.collect.sources["mine"].content == "ratings" and "rlhf" in taken.stage_names
    before = key_of(taken, workspace)
    assert key_of(config("feedback:/verdicts", content="auto"), workspace) == before
    answered("verdicts", "Hi", "Hello again", True)
    assert key_of(config("feedback:/verdicts", content="auto"), workspace) != before
    card = collected(taken, workspace, recorder)
    assert card["rows"] == 3 and card["origin"] == "feedback:/verdicts"


@pytest.mark.parametrize("answer", ["42", "true", "null", "[1, 2]", '{"text": "one", "name": "two"}', '"quoted"'])
def test_an_answer_that_looks_like_json_stays_as_it_was_said(answer):
    said = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
    for logged in (answer, {"answer": answer}, said):
        assert _text_of(json.dumps(logged), _SAID) == answer
    assert _text_of(json.dumps(answer), _ASKED) == answer


def test_numbers_that_people_logged_are_ratings(workspace):
    answered("numbers", "Hi", "Hello", 4.5, 3)
    taken = config("feedback:/numbers", content="auto")
    rows = [json.loads(line)
            for line in (workspace.root / taken.collect.sources["mine"].paths[0]).read_text().splitlines()]
    assert [row["rating"] for row in rows] == [4.5, 3.0]
    answered("numbers", "Hi", "Hello", True)
    with pytest.raises(InputError, match="feedback:/numbers: feedback of two kinds"):
        config("feedback:/numbers")


def test_verdicts_become_choices_of_the_person_who_gave_them_to_answers_of_one_prompt(workspace):
    answered("choices", CHAT, HELLO, True)
    answered("choices", CHAT, "Go away", "down")
    answered("choices", CHAT, "Hello you", True)
    answered("choices", "Another prompt", "Go away", False)
    labels, rated = verdicts_as_labels("choices")
    assert [(label.first.text, label.second.text) for label in labels] == [("Hello", "Go away"),
                                                                           ("Hello you", "Go away")]
    assert {(label.labeller, label.verdict) for label in labels} == {("somebody@example.org", "first")}
    assert labels[0].prompt == CHAT["messages"] and labels[0].when.startswith("20")
    assert [row["label"] for row in rated] == [True, False, True, False]
    assert verdicts_as_labels("choices")[0] == labels

    def taken_over() -> str:
        folder = str(workspace.root / "feedback")
        return CliRunner().invoke(app, ["label", "--import", "feedback:/choices", "--to", folder]).output

    assert "2 choices and 4 rated answers more" in taken_over()
    assert "0 choices and 0 rated answers more" in taken_over(), "nothing twice"
    files = LabelFiles(workspace.root / "feedback")
    assert files.labels("somebody@example.org") == labels
    for path, content in ((files.preferences, "preferences"), (workspace.root / "feedback/ratings.jsonl", "ratings")):
        assert all(recognise(row, content).read(row)[0] == content for row in read_rows(path))
    no_prompt = {"messages": [*CHAT["messages"], {"role": "system", "content": "Be briefer."}]}
    answered("choices", no_prompt, HELLO, True)
    answered("choices", no_prompt, "Go away", False)
    told = taken_over()
    assert "0 choices and 0 rated answers more" in told
    assert "3 left out, from which nothing can be learned: " in told and len(files.labels()) == 2
    answered("choices", CHAT, "A number of stars", 4)
    with pytest.raises(InputError, match="numbers, which are no verdicts"):
        verdicts_as_labels("choices")
