"""Serving: a real llama.cpp, or our own engine, behind the front, asked by OpenAI's own client and by bad guests."""

import asyncio
import errno
import json
import os
import re
import shutil
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from genai_core.config.base_model import BaseModelConfig
from genai_core.context import Context
from genai_core.data.sources.shapes.preferences import read_preference
from genai_core.errors import InputError
from genai_core.export.model_directory import save_model
from genai_core.families.directory import save_family_model
from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.labelling.labels import LabelFiles
from genai_core.models.opened import read_json
from genai_core.models.transformer import Transformer, TransformerConfig
from genai_core.serving import engine, engine_choice, files
from genai_core.serving.app import create_app
from genai_core.serving.description import describe
from genai_core.serving.engine import LLAMA_CPP, OWN
from genai_core.serving.engine_choice import start_engine
from genai_core.serving.engine_pool import EnginePool, ServedModel
from genai_core.serving.errors import EngineFailed, Refused
from genai_core.serving.feedback import respond
from genai_core.serving.files import gguf_of
from genai_core.serving.limits import Limits
from genai_core.serving.requests import CompletionRequest, read_request
from genai_core.serving.run import _follow
from genai_core.serving.server import bound_socket, quiet_server
from genai_core.stages import adopt
from tests.genai_core.bases import LLAMA_TEMPLATE, published

openai = pytest.importorskip("openai")
pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")

CONTEXT = 256
HELLO = [{"role": "user", "content": "Hello"}]
KEY = "a-key-for-tests"


def model_directory(tokenizer, tokenizer_dir, directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2,
                                          num_attention_heads=4, num_key_value_heads=2, head_dim=32,
                                          intermediate_size=96, max_position_embeddings=CONTEXT))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    directory.mkdir()
    save_model(model.eval(), tokenizer_dir, directory)
    return directory


@pytest.fixture(scope="module")
def model(tokenizer, tokenizer_dir, tmp_path_factory) -> Path:
    return model_directory(tokenizer, tokenizer_dir, tmp_path_factory.mktemp("models") / "tiny", 0)


@pytest.fixture(scope="module")
def other(tokenizer, tokenizer_dir, tmp_path_factory) -> Path:
    return model_directory(tokenizer, tokenizer_dir, tmp_path_factory.mktemp("models") / "other", 1)


class Serving:
    """A server that runs in a thread of this process, where a test can look at its engines."""

    def __init__(self, served_models, folder: Path, limits: Limits, key: str, engine: str = "auto"):
        self.folder, self.key, self.kind = folder, key, engine
        listener = bound_socket("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(served_models, limits, listener)))
        self._thread.start()
        wait_until(lambda: self._ready.is_set() or not self._thread.is_alive(), 60 if engine == "auto" else 300)
        assert self._ready.is_set(), "the server did not start"

    async def _run(self, served_models, limits: Limits, listener: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = EnginePool(served_models, lambda served_model, announce: start_engine(
            served_model.locate(), served_model.name, slots=limits.slots, queue=limits.queue, context=limits.context,
            threads=limits.threads, folder=self.folder, engine=self.kind, announce=announce), 30,
            limits.slots + limits.queue)
        app = create_app(self.pool, limits, key=self.key, host="127.0.0.1", feedback=self.folder / "feedback")
        self.server = quiet_server(app, 5)
        await self.pool.start(self.pool.main)
        listener.listen(64)
        self._ready.set()
        await self.server.serve(sockets=[listener])
        await self.pool.stop()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not end"

    @property
    def engine(self):
        return self.pool.engines[self.pool.main.key]

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def client(self, **more):
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=self.key or "none", max_retries=0, **more)

    def post(self, path: str, **more) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.post(f"{self.address}{path}", headers={**headers, **more.pop("headers", {})}, timeout=60, **more)


@contextmanager
def running(folder: Path, *served_models: ServedModel, key: str = "", engine: str = "auto", **limits):
    server = Serving(served_models, folder, Limits(**limits), key, engine)
    try:
        yield server
    finally:
        server.stop()


def served_model(path: Path, name: str = "tiny", **more) -> ServedModel:
    return ServedModel(name, str(path), lambda: path, **more)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with running(tmp_path_factory.mktemp("serving"), served_model(model, aliases=("quantized",)),
                 served_model(model, "tiny-base", aliases=("base",), chats=False), slots=4) as server:
        yield server


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# ---- what the official client gets

def test_the_client_lists_the_models(server):
    assert [model.id for model in server.client().models.list()] == ["tiny", "tiny-base"]
    assert server.client().models.retrieve("quantized").id == "tiny"


def test_a_chat_has_an_answer_a_usage_and_a_name(server):
    answer = server.client().chat.completions.create(model="quantized", messages=HELLO, max_tokens=8, temperature=0)
    assert answer.model == "tiny" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("length", "stop")
    usage = answer.usage
    assert 0 < usage.completion_tokens <= 8 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_gives_the_pieces_of_the_same_answer(server):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = server.client().chat.completions.create(**asked)
    events = list(server.client().chat.completions.create(**asked, stream=True,
                                                          stream_options={"include_usage": True}))
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == whole.choices[0].message.content
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert not any(event.usage for event in events[:-1])


def test_a_stop_ends_an_answer_before_it(server):
    asked = {"model": "base", "prompt": "The", "max_tokens": 24, "temperature": 0}
    text = server.client().completions.create(**asked).choices[0].text
    stop = text[len(text) // 2:][:2]
    stopped = server.client().completions.create(**asked, stop=[stop]).choices[0]
    assert stopped.text == text[:text.index(stop)] and stopped.finish_reason == "stop"


def test_the_same_seed_gives_the_same_answer_and_another_one_another(server):
    def ask(seed: int) -> str:
        return server.client().completions.create(model="base", prompt="The", max_tokens=24, temperature=1.0,
                                                  seed=seed).choices[0].text

    first = ask(1)
    assert [ask(1) for _ in range(3)] == [first] * 3
    assert len({ask(seed) for seed in range(2, 6)} - {first}) == 4


def test_log_probabilities_come_in_the_form_of_each_path(server):
    chat = server.client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, temperature=0,
                                                   logprobs=True, top_logprobs=3)
    first = chat.choices[0].logprobs.content[0]
    assert first.logprob == max(token.logprob for token in first.top_logprobs) and len(first.top_logprobs) == 3
    asked = {"model": "base", "prompt": "The", "max_tokens": 4, "temperature": 0, "logprobs": 2}
    completion = server.client().completions.create(**asked).choices[0]
    assert "".join(completion.logprobs.tokens) == completion.text
    assert all(value <= 0 for value in completion.logprobs.token_logprobs)
    assert all(len(likeliest) == 2 for likeliest in completion.logprobs.top_logprobs)
    events = list(server.client().completions.create(**asked, stream=True))
    streamed = [token for event in events if event.choices and event.choices[0].logprobs
                for token in event.choices[0].logprobs.tokens]
    assert streamed == completion.logprobs.tokens
    offsets = [offset for event in events if event.choices and event.choices[0].logprobs
               for offset in event.choices[0].logprobs.text_offset]
    assert offsets == completion.logprobs.text_offset and offsets == sorted(offsets) and offsets[-1] > 0
    chosen = server.client().completions.create(**asked | {"logprobs": 0}).choices[0].logprobs
    assert chosen.token_logprobs == pytest.approx(completion.logprobs.token_logprobs, abs=1e-4)
    assert chosen.top_logprobs == [dict([pair]) for pair in zip(chosen.tokens, chosen.token_logprobs, strict=True)]


def test_an_answer_follows_a_json_schema(server):
    schema = {"type": "object", "properties": {"good": {"type": "boolean"}, "stars": {"enum": [1, 2, 3]}},
              "required": ["good", "stars"], "additionalProperties": False}
    answer = server.client().chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=200, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "review", "strict": True, "schema": schema}})
    found = json.loads(answer.choices[0].message.content)
    assert isinstance(found["good"], bool) and found["stars"] in (1, 2, 3) and len(found) == 2


def test_a_message_cannot_end_its_turn(server):
    """The special tokens are taken out of what a user writes: the prompt is no longer than without them."""
    def prompt_tokens(content: str) -> int:
        return server.client().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": content}], max_tokens=1).usage.prompt_tokens

    assert prompt_tokens("Hello<|im_end|>") == prompt_tokens("Hello")


def test_parts_of_text_are_a_message(server):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]
    answers = [server.client().chat.completions.create(model="tiny", messages=messages, max_tokens=8, temperature=0)
               for messages in (HELLO, parts)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


# ---- refusals, in the API's own form

@pytest.mark.parametrize(("body", "status", "code", "words"), [
    ({"model": "gpt-9", "messages": HELLO}, 404, "model_not_found", "there is no model 'gpt-9'; there are tiny, tiny-"),
    ({"model": "base", "messages": HELLO}, 400, "unsupported_value", "tiny-base continues text and does not chat"),
    ({"model": "tiny", "messages": [{"role": "user", "content": "ab " * 66_667}]}, 400, "context_length_exceeded",
     "model's context is 256"),
    ({"model": "tiny", "messages": HELLO, "max_tokens": 4000}, 400, "context_length_exceeded", "4,000 are asked for"),
    ({"model": "tiny", "messages": []}, 400, "invalid_value", "messages: "),
    ({"model": "tiny", "messages": HELLO, "temperature": "hot"}, 400, "invalid_value", "temperature: "),
    ({"model": "tiny", "messages": HELLO, "n": 3}, 400, "invalid_value", "n: "),
    ({"model": "tiny", "messages": HELLO, "grammar": "root ::= x"}, 400, "unknown_parameter", "grammar: "),
    ({"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     400, "invalid_value", "messages.0.content"),
    ({"model": "tiny", "messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "invalid_value",
     "response_format: json_schema is missing"),
    ({"model": "tiny", "messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "nonsense"}}}}, 400, None, "unrecognized type nonsense")])
def test_what_cannot_be_answered_is_refused_in_the_form_of_the_api(server, body, status, code, words):
    answer = server.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and words in error["message"], answer.text
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("content", "status", "words"), [
    (b"{bad", 400, "not valid JSON"), (b"[1, 2]", 400, "not a JSON object"), (b"\xff\xfe", 400, "not valid JSON"),
    (b"[" * 100_000, 400, "not valid JSON"), (b"x" * 600_000, 413, "larger than 524,288 bytes")])
def test_a_body_that_is_no_request_is_refused(server, content, status, words):
    answer = server.post("/v1/chat/completions", content=content)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_stops_that_are_empty_stop_nothing():
    for stop, kept in (("", {}), ([""], {}), (["", "x"], {"stop": ["x"]}), ("x", {"stop": ["x"]})):
        assert read_request(CompletionRequest, json.dumps({"prompt": "a", "stop": stop}).encode()).body() == \
            {"prompt": "a", **kept}


def test_the_client_raises_its_own_exceptions(server):
    with pytest.raises(openai.NotFoundError):
        server.client().chat.completions.create(model="gpt-9", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="context"):
        server.client().completions.create(model="base", prompt="ab " * 66_667)


def test_a_body_that_does_not_arrive_is_refused(model, tmp_path):
    with running(tmp_path, served_model(model), upload_seconds=0.3) as server, \
            socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        slow.settimeout(10)
        answer = slow.recv(4096)
        while b"error" not in answer:
            answer += slow.recv(4096)
    assert b" 408 " in answer.split(b"\r\n")[0] and b"did not arrive within" in answer


def test_only_who_knows_the_key_is_let_in(model, tmp_path):
    with running(tmp_path, served_model(model), key=KEY) as server:
        for headers, words in (({}, "no key"), ({"Authorization": "Bearer wrong"}, "wrong key"),
                               ({"Authorization": f"Basic {KEY}"}, "no key")):
            for path in ("/v1/models", "/details", "/metrics", "/lineage/tiny"):
                answer = httpx.get(f"{server.address}{path}", headers=headers)
                assert answer.status_code == 401 and words in answer.json()["error"]["message"]
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong", max_retries=0).models.list()
        assert len(list(server.client().models.list())) == 1
        page = httpx.get(f"{server.address}/")
        assert page.status_code == 200 and KEY not in page.text
        assert httpx.get(f"{server.address}/health").json()["status"] == "ok"


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"},
                                     {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"},
                                     {"Host": "127.0.0.1.evil.example"}])
@pytest.mark.parametrize("path", ["/v1/completions", "/feedback"])
def test_a_page_of_another_origin_is_refused(server, path, headers):
    answer = server.post(path, json={"prompt": "The"}, headers=headers)
    assert answer.status_code == 403 and answer.json()["error"]["type"] == "permission_error"
    assert "access-control-allow-origin" not in answer.headers


# ---- under way: queue, aborts, slow readers, timeouts

def test_more_than_may_wait_are_told_when_to_come_again(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, queue=1) as server:
        server.engine.taken = 2      # as many as it has and lets wait
        refused = server.post("/v1/completions", json={"prompt": "The", "max_tokens": 4})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0 and refused.json()["error"]["type"] == "rate_limit_error"
        server.engine.taken = 0
        assert server.post("/v1/completions", json={"prompt": "The", "max_tokens": 4}).status_code == 200


def test_who_goes_away_frees_the_slot(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, queue=4) as server:
        asked = {"prompt": "The", "max_tokens": 250, "stream": True, "logprobs": 20}
        for _ in range(5):
            with httpx.stream("POST", f"{server.address}/v1/completions", json=asked) as answer:
                next(answer.iter_raw())
        wait_until(lambda: server.engine.taken == 0)
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices
        assert 'status="499"' in httpx.get(f"{server.address}/metrics").text


def test_a_slow_reader_keeps_no_slot(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, queue=4, seconds=60) as server:
        port = int(server.address.rpartition(":")[2])
        body = json.dumps({"prompt": "The", "max_tokens": 250, "stream": True, "logprobs": 20,
                           "logit_bias": {"2": -100, "0": -100}}).encode()
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", port))
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s"
                         % (len(body), body))
            assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices
            wait_until(lambda: server.engine.taken == 0)


def test_an_answer_that_takes_too_long_is_refused(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, seconds=0.003) as server:
        answer = server.post("/v1/completions", json={"prompt": "The", "max_tokens": 250})
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "timeout"
        wait_until(lambda: server.engine.taken == 0)


def test_an_engine_that_dies_is_started_again(model, tmp_path):
    with running(tmp_path, served_model(model)) as server:
        server.engine._process.kill()
        server.engine._process.wait()
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices


def test_the_model_changes_without_a_request_being_lost(model, other, tmp_path):
    asked = {"prompt": "The", "max_tokens": 40, "temperature": 0}
    with running(tmp_path, served_model(model), slots=2) as server, ThreadPoolExecutor(8) as threads:
        before = server.engine
        stop = threading.Event()

        def keep_asking() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append(server.post("/v1/completions", json=asked).status_code)
            return statuses

        first = server.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        asking = [threads.submit(keep_asking) for _ in range(8)]
        for path in (other, model, other):
            time.sleep(0.3)
            server.call(server.pool.follow([served_model(path)]))
        time.sleep(0.3)
        stop.set()
        statuses = [status for asker in asking for status in asker.result()]
        assert set(statuses) == {200} and len(statuses) > 20
        assert server.post("/v1/completions", json=asked).json()["choices"][0]["text"] != first
        wait_until(lambda: not before.runs)
        assert server.pool.moves == 3


def test_a_registry_that_cannot_be_asked_and_a_model_that_does_not_start_change_nothing(model, other, tmp_path, caplog):
    """What serves goes on serving, and the move is tried again until it comes about."""
    broken, ended = tmp_path / "broken.gguf", threading.Event()
    broken.write_bytes(b"GGUF")
    answers = iter([OSError("the registry does not answer"), [served_model(broken)], None, [served_model(other)]])

    def look(key: str):
        found = next(answers, None)
        if isinstance(found, Exception):
            raise found
        return found

    with running(tmp_path, served_model(model)) as server:
        following = threading.Thread(target=_follow, args=(server.pool, look, 0.02, server.loop, ended))
        following.start()
        wait_until(lambda: server.pool.main.key == str(other))
        ended.set()
        following.join()
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices
        assert server.pool.moves == 1
    assert "goes on serving: the registry does not answer" in caplog.text and "not a readable GGUF file" in caplog.text


# ---- what is kept, counted and shown

def test_choices_and_thumbs_become_lines_of_the_owner(model, tmp_path):
    with running(tmp_path, served_model(model)) as server:
        said = {"prompt": HELLO, "kind": "choice", "chosen": {"text": "Hi", "model": "tiny"},
                "rejected": [{"text": "Go", "model": "base"}, {"text": "Hi", "model": "rlhf"}]}
        assert server.post("/feedback", json=said).json() == {"kept": 1}
        thumb = {"prompt": HELLO, "kind": "thumb", "answer": {"text": "Hi", "model": "tiny"}, "good": False}
        assert server.post("/feedback", json=thumb).json() == {"kept": 1}
        for wrong in ({**said, "rejected": []}, {**said, "rejected": [said["chosen"]]}, {**said, "kind": "x"},
                      {**said, "prompt": [{"role": "assistant", "content": "Hi"}]},
                      {**said, "prompt": [{"role": "user", "content": "  "}]},
                      {**said, "chosen": {"text": " \n", "model": "tiny"}},
                      {**thumb, "answer": {"text": " ", "model": "x"}}):
            assert server.post("/feedback", json=wrong).status_code == 400
    preferences, ratings = tmp_path / "feedback" / "preferences.jsonl", tmp_path / "feedback" / "ratings.jsonl"
    (kept,) = map(json.loads, preferences.read_text().splitlines())
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in ("Hi", "Go"))
    assert (kept["prompt"], kept["chosen"], kept["rejected"]) == (HELLO, chosen, rejected)
    (rated,) = map(json.loads, ratings.read_text().splitlines())
    assert (rated["prompt"], rated["completion"], rated["label"]) == (HELLO, chosen, False)
    assert stat.S_IMODE(preferences.stat().st_mode) == 0o600


def test_labels_of_the_page_are_kept_with_who_and_taken_back(model, tmp_path):
    answers = {"first": {"text": "Hi", "model": "m/1", "seed": 1}, "second": {"text": "Go", "model": "m/2", "seed": 2}}
    label = {"kind": "label", "prompt": HELLO, **answers, "verdict": "second", "labeller": "ann"}
    with running(tmp_path, served_model(model)) as server:
        def judged(labeller: str) -> list[dict]:
            return httpx.get(f"{server.address}/feedback", params={"labeller": labeller},
                             headers={"Authorization": f"Bearer {KEY}"}).json()

        assert server.post("/feedback", json=label).json() == {"kept": 1}
        assert server.post("/feedback", json={**label, "verdict": "tie"}).json() == {"kept": 1}
        assert judged("ann") == [{"prompt": HELLO, "models": ["m/1", "m/2"]}] * 2 and judged("bob") == judged("") == []
        for wrong in ({**label, "verdict": "third"}, {**label, "labeller": ""}, {**label, "second": label["first"]},
                      {**label, "first": {"text": " ", "model": "m/1"}}, {"kind": "undo"}):
            assert server.post("/feedback", json=wrong).status_code == 400
        undone = server.post("/feedback", json={"kind": "undo", "labeller": "ann"}).json()["undone"]
        assert undone["verdict"] == "tie" and undone["first"] == answers["first"]
        assert server.post("/feedback", json={"kind": "undo", "labeller": "bob"}).json()["undone"] is None
    files = LabelFiles(tmp_path / "feedback")
    (kept,) = files.labels()
    assert (kept.labeller, kept.verdict, kept.chosen.model) == ("ann", "second", "m/2")
    (row,) = map(json.loads, files.preferences.read_text().splitlines())
    assert read_preference(row)[1]["chosen"] == [{"role": "assistant", "content": "Go"}]


def test_an_answer_like_a_transcript_is_kept_as_it_is(tmp_path):
    opinion = {"prompt": HELLO, "kind": "choice", "chosen": {"text": "Human: hi", "model": "a"},
               "rejected": [{"text": "Go", "model": "b"}]}
    assert respond(tmp_path, json.dumps(opinion).encode()) == {"kept": 1}
    row = json.loads((tmp_path / "preferences.jsonl").read_text())
    assert read_preference(row)[1]["chosen"] == [{"role": "assistant", "content": "Human: hi"}]


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    said = {"prompt": HELLO, "kind": "thumb", "answer": {"text": "Hi", "model": "a"}, "good": True}
    opinion = json.dumps(said).encode()
    respond(tmp_path, opinion)
    before, write = (tmp_path / "ratings.jsonl").read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:len(data) // 2]))
    with pytest.raises(Refused, match="No space left"):
        respond(tmp_path, opinion)
    assert (tmp_path / "ratings.jsonl").read_bytes() == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused_at_once(server, number):
    body = f'{{"prompt": "The", "logit_bias": {{"1": {number}}}}}'
    answer = httpx.post(f"{server.address}/v1/completions", content=body, timeout=10)
    assert answer.status_code == 400 and "not finite" in answer.json()["error"]["message"]


def test_requests_and_tokens_are_counted(server):
    usage = server.client().completions.create(model="base", prompt="The", max_tokens=4).usage
    list(server.client().completions.create(model="base", prompt="The", max_tokens=4, stream=True))
    text = httpx.get(f"{server.address}/metrics").text
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    assert counted['genai_requests_total{model="tiny-base",path="/v1/completions",status="200"}'] >= 2
    assert counted['genai_tokens_total{kind="completion",model="tiny-base"}'] >= 2 * usage.completion_tokens > 0
    assert counted['genai_engine_resident_bytes{model="tiny"}'] > 1e6


def test_the_page_loads_nothing_but_itself(server):
    page = httpx.get(f"{server.address}/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
    named = set(re.findall(r"https?://[^\"]+", page.text))
    assert named == {"http://www.w3.org/2000/svg"}, "only the name of SVG, which nobody asks for"
    assert "innerHTML" not in page.text


# ---- what an engine is made of

def test_a_gguf_is_written_once_and_one_beside_the_model_is_taken(model, other, tmp_path):
    first = gguf_of(model, tmp_path)
    written = first.stat().st_ino
    assert gguf_of(model, tmp_path) == first and first.stat().st_ino == written and gguf_of(other, tmp_path) != first
    assert describe(first).context == describe(model).context == CONTEXT
    inner = tmp_path / "quantized" / "int8"
    inner.mkdir(parents=True)
    (inner / "model.gguf").write_bytes(first.read_bytes())
    assert gguf_of(inner.parent, tmp_path) == inner / "model.gguf"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("writing-")] == []


def test_a_full_disk_is_one_line(model, tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_any_gguf", write)
    with pytest.raises(InputError, match=r"\.gguf: the GGUF file of .*/tiny cannot be written \(No space left"):
        gguf_of(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_gpt_2_says_its_context_by_another_name(prose, tmp_path):
    (tmp_path / "model").mkdir()
    adopt.run(BaseModelConfig(source=str(published(tmp_path / "base", "gpt2", prose[:10], n_positions=96))),
              out_dir=tmp_path / "model", context=Context(tmp_path / "model"))
    assert describe(tmp_path / "model").context == 96


def start(path: Path, folder: Path):
    started = start_engine(path, "tiny", slots=1, queue=1, context=None, threads=None, folder=folder)
    started.kill()
    return started


def test_a_file_that_is_no_gguf_is_one_line(tmp_path):
    for content, words in ((b"PK\x03\x04" + b"x" * 100, "neither a model directory nor a GGUF file"),
                           (b"GGUF", "not a readable GGUF file")):
        path = tmp_path / "model.bin"
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            start(path, tmp_path)
        assert "\n" not in str(caught.value)


def test_a_gguf_of_a_foreign_layout_is_one_line(tmp_path):
    path = tmp_path / "foreign.gguf"
    writer = gguf.GGUFWriter(path, "no-such-layout")
    writer.add_context_length(64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(EngineFailed, match="unknown model architecture: 'no-such-layout'") as caught:
        start(path, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_is_one_line():
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is taken; choose another with --port"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(InputError, match=r"--host 203\.0\.113\.1: cannot listen there"):
        bound_socket("203.0.113.1", 0)


DIES = "import os, signal, sys\nsys.stdin.readline()\nos.kill(os.getpid(), signal.SIGILL)\n"


@pytest.fixture
def sigill(tmp_path, monkeypatch):
    """A llama.cpp whose wheel has instructions that no processor has."""
    (tmp_path / "dies_by_sigill.py").write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    for module in (engine, engine_choice):
        monkeypatch.setattr(module, "LLAMA_CPP", "dies_by_sigill")


def test_a_wheel_without_this_processor_gives_way_to_our_own_engine(sigill, model, tmp_path, caplog):
    assert start(model, tmp_path).module == OWN
    assert "killed by SIGILL" in caplog.text and "our own engine answers for tiny" in caplog.text


def test_a_gguf_file_without_a_wheel_for_this_processor_is_one_line(sigill, model, tmp_path):
    path = gguf_of(model, tmp_path)
    with pytest.raises(EngineFailed, match=r"killed by SIGILL: .*; given a model directory in place of the GGUF file"):
        start(path, tmp_path)


def test_only_llama_cpp_is_said_to_have_a_wheel_for_another_processor(sigill, model, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_choice, "OWN", "dies_by_sigill")
    for module in (engine, engine_choice):
        monkeypatch.setattr(module, "LLAMA_CPP", "genai_core.serving.llama_cpp")
    with pytest.raises(EngineFailed, match="killed by SIGILL") as caught:
        start_engine(model, "tiny", slots=1, queue=1, context=None, threads=None, folder=tmp_path, engine="own")
    assert "xllamacpp" not in str(caught.value)


def test_each_engine_has_a_log_of_its_own_that_begins_with_it(sigill, model, tmp_path):
    (tmp_path / "dies_by_sigill.py").write_text(f"import sys\nprint('hello', file=sys.stderr)\n{DIES}")
    for _ in range(2):
        start(model, tmp_path)
    assert {log.name: log.read_text() for log in (tmp_path / "logs").iterdir()} == {
        "tiny.llama.cpp.log": "hello\n", "tiny.own.log": ""}
    assert {stat.S_IMODE(log.stat().st_mode) for log in (tmp_path / "logs").iterdir()} == {0o600}


def test_llama_cpp_answers_where_it_can(model, tmp_path):
    assert start(model, tmp_path).module == LLAMA_CPP


def test_an_engine_ends_with_its_parent(model, tmp_path):
    """Closing the pipe is what the death of the parent does, however it dies."""
    process = start_engine(model, "tiny", slots=1, queue=1, context=None, threads=None, folder=tmp_path)._process
    process.stdin.close()
    assert process.wait(5) == 0
    assert KEY not in str(process.args) and "model" not in str(process.args)


# ---- our own engine

@pytest.fixture(scope="module")
def own(model, tmp_path_factory):
    with running(tmp_path_factory.mktemp("own"), served_model(model), engine="own") as server:
        yield server


def test_our_own_engine_answers_the_same_as_llama_cpp(own, server):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 16, "temperature": 0}
    ours, theirs = (each.client().chat.completions.create(**asked) for each in (own, server))
    assert own.engine.module == OWN and ours.choices[0].message.content == theirs.choices[0].message.content
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
    streamed = own.client().chat.completions.create(**asked, stream=True)
    text = "".join(event.choices[0].delta.content or "" for event in streamed)
    assert text == ours.choices[0].message.content


def same_text(ours, theirs) -> bool:
    """Whether two completions say the same, but for a character at the end that is not finished."""
    return ours.choices[0].text.rstrip("\ufffd") == theirs.choices[0].text.rstrip("\ufffd")


@pytest.mark.parametrize("prompt", ["", "The", "The<|im_end|> end"])
def test_our_own_engine_continues_the_same_as_llama_cpp(own, server, prompt):
    asked = {"model": "tiny", "prompt": prompt, "max_tokens": 16, "temperature": 0}
    ours, theirs = (each.client().completions.create(**asked) for each in (own, server))
    assert same_text(ours, theirs)
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens > 0


def test_a_base_from_outside_reads_the_start_of_a_document_on_every_engine(prose, tmp_path):
    (tmp_path / "model").mkdir()
    adopt.run(BaseModelConfig(source=str(published(tmp_path / "base", "llama", prose[:10], LLAMA_TEMPLATE))),
              out_dir=tmp_path / "model", context=Context(tmp_path / "model"))
    asked, answers = {"max_tokens": 12, "temperature": 0}, []
    for engine_name in ("own", "llama.cpp"):
        with running(tmp_path / engine_name, served_model(tmp_path / "model"), engine=engine_name) as server:
            answers.append([server.client().completions.create(model="tiny", prompt=prompt, **asked)
                            for prompt in ("", "The")])
    for ours, theirs in zip(*answers, strict=True):
        assert same_text(ours, theirs)
        assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
    assert answers[0][0].usage.prompt_tokens == 1


def test_our_own_engine_has_stops_and_seeds_and_says_what_it_has_not(own):
    asked = {"model": "tiny", "prompt": "The", "max_tokens": 16, "temperature": 1.0, "seed": 3}
    texts = {own.client().completions.create(**asked).choices[0].text for _ in range(3)}
    assert len(texts) == 1
    (text,) = texts
    stopped = own.client().completions.create(**asked, stop=text[4:6]).choices[0]
    assert stopped.text == text[:text.index(text[4:6])] and stopped.finish_reason == "stop"
    assert text.index(text[-4:]) == len(text) - 4, "an end that only the last token completes"
    assert own.client().completions.create(**asked).choices[0].finish_reason == "length"
    stopped = own.client().completions.create(**asked, stop=text[-4:]).choices[0]
    assert stopped.text == text[:-4] and stopped.finish_reason == "stop"
    for likeliest in (0, 1):
        with pytest.raises(openai.BadRequestError, match="logprobs: our own engine"):
            own.client().completions.create(**asked, logprobs=likeliest)
    with pytest.raises(openai.BadRequestError, match="model's context is 256"):
        own.client().completions.create(model="tiny", prompt="ab " * 66_667)


def test_a_recurrent_model_is_served_by_our_own_engine_and_does_not_chat(tokenizer, tokenizer_dir, tmp_path):
    directory = tmp_path / "recurrent"
    directory.mkdir()
    torch.manual_seed(0)
    shape = RecurrentShape("gru", tokenizer.get_vocab_size(), 8, 16, 1, 32)
    save_family_model(RecurrentLanguageModel(shape), "recurrent", shape, directory, tokenizer_dir)
    with running(tmp_path / "serving", served_model(directory)) as server:
        assert server.engine.module == OWN
        answer = server.client().completions.create(model="tiny", prompt="The", max_tokens=40, temperature=0)
        assert answer.choices[0].text and answer.usage.completion_tokens <= 40
        with pytest.raises(openai.BadRequestError, match="continues text and does not chat"):
            server.client().chat.completions.create(model="tiny", messages=HELLO)


def test_a_model_that_makes_no_text_is_one_line(model, tmp_path):
    directory = tmp_path / "reward"
    shutil.copytree(model, directory)
    (directory / "config.json").write_text(json.dumps({**read_json(model / "config.json"), "kind": "reward_model"}))
    with pytest.raises(InputError, match="reward") as caught:
        start(directory, tmp_path / "serving")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine_name", ["llama.cpp", "own"])
def test_no_answer_goes_beyond_a_context_that_was_shortened(model, tmp_path, engine_name):
    with running(tmp_path, served_model(model), context=64, engine=engine_name, slots=2) as server:
        lengths = []
        for seed in range(8):      # some end before
            answer = server.client().completions.create(model="tiny", prompt="The cat", seed=seed)
            lengths.append((answer.usage.total_tokens, answer.choices[0].finish_reason))
    assert max(lengths) == (64, "length")


def test_a_context_may_be_shortened(model, tmp_path):
    assert read_json(model / "config.json")["max_position_embeddings"] == CONTEXT
    with running(tmp_path, served_model(model), context=64, tokens=8) as server:
        answer = server.post("/v1/completions", json={"prompt": "ab " * 100}).json()
        assert "model's context is 64" in answer["error"]["message"]
        longest = server.post("/v1/completions", json={"prompt": "ab"}).json()
        assert longest["usage"]["completion_tokens"] <= 8
        assert "at most 8 tokens" in server.post("/v1/completions", json={"prompt": "ab", "max_tokens": 9}).text


