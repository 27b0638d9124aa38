"""Engines: what each is made of, which one is taken, and that ours answers as llama.cpp does."""

import errno
import json
import shutil
import stat
from pathlib import Path

import pytest
import torch

from genai_core.config.base_model import BaseModelConfig
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.families.directory import save_family_model
from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.models.opened import read_json
from genai_core.serving.engines import choice, gguf_cache, process
from genai_core.serving.engines.choice import start_engine
from genai_core.serving.engines.description import describe
from genai_core.serving.engines.gguf_cache import gguf_of
from genai_core.serving.engines.process import LLAMA_CPP, OWN
from genai_core.serving.errors import EngineFailed
from genai_core.stages import adopt
from tests.genai_core.bases import LLAMA_TEMPLATE, published
from tests.genai_core.serving.servers import CONTEXT, HELLO, KEY, running, served_model

openai = pytest.importorskip("openai")
pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")

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

    monkeypatch.setattr(gguf_cache, "write_any_gguf", write)
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


DIES = "import os, signal, sys\nsys.stdin.readline()\nos.kill(os.getpid(), signal.SIGILL)\n"


@pytest.fixture
def sigill(tmp_path, monkeypatch):
    """A llama.cpp whose wheel has instructions that no processor has."""
    (tmp_path / "dies_by_sigill.py").write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    for module in (process, choice):
        monkeypatch.setattr(module, "LLAMA_CPP", "dies_by_sigill")


def test_a_wheel_without_this_processor_gives_way_to_our_own_engine(sigill, model, tmp_path, caplog):
    assert start(model, tmp_path).module == OWN
    assert "killed by SIGILL" in caplog.text and "our own engine answers for tiny" in caplog.text


def test_a_gguf_file_without_a_wheel_for_this_processor_is_one_line(sigill, model, tmp_path):
    path = gguf_of(model, tmp_path)
    with pytest.raises(EngineFailed, match=r"killed by SIGILL: .*; given a model directory in place of the GGUF file"):
        start(path, tmp_path)


def test_only_llama_cpp_is_said_to_have_a_wheel_for_another_processor(sigill, model, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "OWN", "dies_by_sigill")
    for module in (process, choice):
        monkeypatch.setattr(module, "LLAMA_CPP", "genai_core.serving.engines.llama_cpp")
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
