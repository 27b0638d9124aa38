"""The front: a real llama.cpp behind it, asked by OpenAI's own client and by bad guests."""

import json
import os
import re
import socket
import stat
from contextlib import contextmanager

import httpx
import pytest

from genai_core.data.sources.shapes.preferences import read_preference
from genai_core.errors import InputError
from genai_core.labelling.labels import LabelFiles
from genai_core.serving.errors import Refused
from genai_core.serving.front.feedback import respond
from genai_core.serving.front.requests import CompletionRequest, read_request
from genai_core.serving.server import bound_socket
from tests.genai_core.serving.servers import HELLO, KEY, running, served_model, wait_until

openai = pytest.importorskip("openai")
pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

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


@contextmanager
def long_stream(server):
    """A connection that has asked for a stream of more bytes than buffers hold, none of which is read yet."""
    body = json.dumps({"prompt": "The", "max_tokens": 250, "stream": True, "logprobs": 20,
                       "logit_bias": {"2": -100, "0": -100}}).encode()
    with socket.socket() as guest:
        guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        guest.connect(("127.0.0.1", int(server.address.rpartition(":")[2])))
        guest.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(body), body))
        yield guest


def test_who_goes_away_frees_the_slot(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, queue=4) as server:
        for _ in range(5):
            with long_stream(server) as guest:
                assert guest.recv(100)
        wait_until(lambda: server.engine.taken == 0)
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices
        assert 'status="499"' in httpx.get(f"{server.address}/metrics").text


def test_a_slow_reader_keeps_no_slot(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, queue=4, seconds=60) as server, long_stream(server):
        assert server.client().completions.create(model="tiny", prompt="The", max_tokens=4).choices
        wait_until(lambda: server.engine.taken == 0)


def test_an_answer_that_takes_too_long_is_refused(model, tmp_path):
    with running(tmp_path, served_model(model), slots=1, seconds=0.003) as server:
        answer = server.post("/v1/completions", json={"prompt": "The", "max_tokens": 250})
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "timeout"
        wait_until(lambda: server.engine.taken == 0)


def test_a_port_that_is_taken_is_one_line():
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is taken; choose another with --port"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(InputError, match=r"--host 203\.0\.113\.1: cannot listen there"):
        bound_socket("203.0.113.1", 0)


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
    undo = {"kind": "undo", "models": ["m/2", "m/1"]}
    with running(tmp_path, served_model(model)) as server:
        def judged(labeller: str) -> list[dict]:
            return httpx.get(f"{server.address}/feedback", params={"labeller": labeller},
                             headers={"Authorization": f"Bearer {KEY}"}).json()

        assert server.post("/feedback", json=label).json() == {"kept": 1}
        swapped = {**label, "first": answers["second"], "second": answers["first"], "verdict": "tie"}
        for again in (swapped, {**swapped, "labeller": " ann\n"}):
            assert server.post("/feedback", json=again).json() == {
                "kept": 0, "reason": "judged in another session meanwhile; that label stays"}
        newer = {**label, "prompt": [{"role": "user", "content": "Again?"}], "verdict": "tie", "labeller": " ann "}
        assert server.post("/feedback", json=newer).json() == {"kept": 1}
        assert [known["models"] for known in judged("ann")] == [["m/1", "m/2"]] * 2 and judged(" ann") == judged("ann")
        assert judged("bob") == judged("") == judged(" ") == []
        for wrong in ({**label, "verdict": "third"}, {**label, "labeller": ""}, {**label, "labeller": " \t"},
                      {**label, "second": label["first"]}, {**label, "first": {"text": " ", "model": "m/1"}},
                      {"kind": "undo"}, {**undo, "labeller": " "}):
            assert server.post("/feedback", json=wrong).status_code == 400, wrong
        undone = server.post("/feedback", json={**undo, "labeller": " ann"}).json()["undone"]
        assert undone["verdict"] == "tie" and undone["first"] == answers["first"]
        assert server.post("/feedback", json={**undo, "labeller": "bob"}).json()["undone"] is None
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


def test_a_full_file_is_told(tmp_path, monkeypatch):
    said = {"prompt": HELLO, "kind": "thumb", "answer": {"text": "Hi", "model": "a"}, "good": True}
    respond(tmp_path, json.dumps(said).encode())
    monkeypatch.setattr("genai_core.labelling.files.LARGEST_FILE", 10)
    with pytest.raises(Refused, match=r"ratings\.jsonl is full; move it away") as refused:
        respond(tmp_path, json.dumps(said).encode())
    assert refused.value.status == 507


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
