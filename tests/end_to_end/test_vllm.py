"""vLLM itself, where there is one: it answers behind `genai serve`, and samples for the stage rlhf."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from genai_core.config.base_model import BaseModelConfig
from genai_core.config.training import LoraConfig, RlhfConfig
from genai_core.context import Context, LogReporter
from genai_core.data.chat import encode_prompt
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.model_directory import load_model
from genai_core.inference.sequences import in_sequence, token_log_probs
from genai_core.inference.vllm.command import VllmMissing, find_vllm
from genai_core.models.adapters import add_adapters
from genai_core.serving.engines.choice import start_engine
from genai_core.serving.engines.process import VLLM
from genai_core.stages import adopt
from genai_core.training.alignment.vllm_sampler import VllmSampler
from tests.genai_core.bases import LLAMA_TEMPLATE, published
from tests.genai_core.serving.servers import CONTEXT, HELLO, model_directory, running, served_model, wait_until

openai = pytest.importorskip("openai")
try:
    find_vllm()
except VllmMissing as missing:
    pytest.skip(f"needs vLLM: {missing}", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.heavy]
ROOT = Path(__file__).parents[2]
KEY = "a-key-of-clients"


@pytest.fixture(scope="module")
def model(tokenizer, tokenizer_dir, tmp_path_factory) -> Path:
    return model_directory(tokenizer, tokenizer_dir, tmp_path_factory.mktemp("models") / "tiny", 0)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with running(tmp_path_factory.mktemp("serving"), served_model(model), key=KEY, engine="vllm", slots=16) as server:
        assert server.engine.module == VLLM
        yield server


def processes_of(engine) -> list[psutil.Process]:
    return psutil.Process(engine._process.pid).children(recursive=True)


# ---- what the official client gets

def test_a_chat_is_answered_as_our_own_engine_answers_it(server, model, tokenizer):
    answer = server.client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=12, temperature=0)
    own = load_model(model, torch.device("cpu"))
    ids = encode_prompt(tokenizer, HELLO)
    assert answer.usage.prompt_tokens == len(ids)
    for _ in range(12):
        ids.append(int(own(torch.tensor([ids]))[0, -1].argmax()))
    expected = tokenizer.decode(ids[-12:], skip_special_tokens=True)
    assert answer.choices[0].message.content == expected and answer.model == "tiny"


def test_a_completion_fills_the_context_where_nothing_else_is_said(server):
    answer = server.client().completions.create(model="tiny", prompt="The", temperature=1.5, seed=1)
    assert answer.usage.completion_tokens > 16 or answer.choices[0].finish_reason == "stop"


def test_a_stream_gives_the_pieces_and_usage_to_who_asks_for_it(server):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    whole = server.client().chat.completions.create(**asked)
    plain = list(server.client().chat.completions.create(**asked, stream=True))
    events = list(server.client().chat.completions.create(**asked, stream=True,
                                                          stream_options={"include_usage": True}))
    for each in (plain, events):
        assert "".join(event.choices[0].delta.content or "" for event in each if event.choices) == \
            whole.choices[0].message.content
    assert all(event.choices and not event.usage for event in plain)
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_tokens_of_streams_are_counted(server):
    def counted() -> float:
        lines = httpx.get(f"{server.address}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    name = 'genai_tokens_total{kind="completion",model="tiny"}'
    before = counted().get(name, 0)
    list(server.client().completions.create(model="tiny", prompt="The", max_tokens=7, temperature=1, seed=3,
                                            stream=True, logit_bias={"2": -100, "0": -100}))
    wait_until(lambda: counted()[name] == before + 7)
    memory = counted()['genai_engine_resident_bytes{model="tiny"}']
    assert memory > 500e6, f"{memory:,.0f} bytes: the processes that vLLM starts are not counted"


def test_log_probabilities_come_in_the_form_of_each_path(server):
    chat = server.client().chat.completions.create(model="tiny", messages=HELLO, max_tokens=4, temperature=0,
                                                   logprobs=True, top_logprobs=3)
    tokens = chat.choices[0].logprobs.content
    assert len(tokens) == chat.usage.completion_tokens and len(tokens[0].top_logprobs) == 3
    legacy = server.client().completions.create(model="tiny", prompt="The", max_tokens=4, temperature=0, logprobs=2)
    logprobs = legacy.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == 4 and all(value <= 0 for value in
                                                                             logprobs.token_logprobs)


def test_an_answer_follows_a_json_schema(server):
    schema = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"],
              "additionalProperties": False}
    answer = server.client().chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=60, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}})
    assert isinstance(json.loads(answer.choices[0].message.content)["good"], bool)


def test_fields_that_vllm_calls_otherwise_have_their_effect(server):
    def ask(**more) -> str:
        return server.client().completions.create(model="tiny", prompt="The", max_tokens=24, temperature=0,
                                                  extra_body=more).choices[0].text

    assert ask(repeat_penalty=5.0) != ask()
    seeded = {ask(temperature=1.0, seed=seed) for seed in (1, 1, 2)}
    assert len(seeded) == 2
    text = ask()
    stop = text[len(text) // 2:][:2]
    assert ask(stop=[stop]) == text[:text.index(stop)]


def test_refusals_have_the_form_of_the_other_engines(server):
    with pytest.raises(openai.BadRequestError, match=f"model's context is {CONTEXT}") as caught:
        server.client().completions.create(model="tiny", prompt="abc " * 600)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(
            model="tiny", messages=HELLO, response_format={
                "type": "json_schema", "json_schema": {"name": "none", "schema": {"type": "no-such-type"}}})
    assert caught.value.body["type"] == "invalid_request_error" and caught.value.body["code"] is None
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong", max_retries=0).models.list()


def test_sixteen_clients_are_answered_at_a_time(server):
    def ask(seed: int) -> int:
        return server.client().completions.create(model="tiny", prompt="The", max_tokens=32, temperature=1,
                                                  seed=seed).usage.completion_tokens

    with ThreadPoolExecutor(16) as pool:
        assert all(0 < count <= 32 for count in pool.map(ask, range(32)))


def test_a_client_that_goes_away_frees_its_slot(server):
    stream = server.client().completions.create(model="tiny", prompt="The", max_tokens=200, temperature=1, seed=5,
                                                stream=True, logit_bias={"2": -100, "0": -100})
    next(iter(stream))
    assert server.engine.taken == 1
    stream.response.close()
    wait_until(lambda: server.engine.taken == 0)


# ---- the process

def test_nothing_secret_stands_in_a_command_and_the_socket_is_its_owners(server):
    engine = server.engine
    for process in processes_of(engine):
        assert engine._key not in " ".join(process.cmdline()) and KEY not in str(process.environ())
    log = engine._log.read_text(errors="replace")
    assert engine._key not in log and "vLLM" in log
    (socket,) = Path(engine.client._socket).parent.glob("socket")
    assert socket.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("killed", ["parent", "wrapper", "asked"])
def test_no_process_is_left_however_it_ends(model, tmp_path, killed):
    """The parent and the wrapper die by SIGKILL; `asked` is a graceful stop."""
    code = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from genai_core.serving.engines.choice import start_engine
        engine = start_engine(Path(sys.argv[1]), "tiny", slots=2, queue=1, context=None, threads=1,
                              folder=Path(sys.argv[2]), engine="vllm")
        print(engine._process.pid, flush=True)
        sys.stdin.readline()
        asyncio.run(engine.stop())
    """)
    parent = subprocess.Popen([sys.executable, "-c", code, str(model), str(tmp_path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wrapper = psutil.Process(int(parent.stdout.readline()))
    started = [wrapper, *wrapper.children(recursive=True)]
    assert len(started) > 2
    if killed == "parent":
        parent.kill()
    elif killed == "wrapper":
        os.kill(wrapper.pid, signal.SIGKILL)
    else:
        parent.stdin.write(b"\n")
        parent.stdin.flush()
    began = time.monotonic()
    alive = psutil.wait_procs(started, 15)[1]
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE], \
        f"{alive} run {time.monotonic() - began:.0f} s later"
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()


def test_a_layout_that_vllm_does_not_know_is_one_line(model, tmp_path):
    directory = tmp_path / "foreign"
    subprocess.run(["cp", "-r", str(model), str(directory)], check=True)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))
    with pytest.raises(InputError, match="NoSuchForCausalLM") as caught:
        start_engine(directory, "tiny", slots=1, queue=1, context=None, threads=1, folder=tmp_path, engine="vllm")
    assert "\n" not in str(caught.value)


# ---- sampling for rlhf

PROMPTS = [list(range(10, 30 + number)) for number in range(6)]


@pytest.fixture
def adopted(prose, tmp_path) -> Path:
    """A base of Llama's layout, with its tokens and template, and a head that is tied."""
    base = published(tmp_path / "base", "llama", prose[:10], LLAMA_TEMPLATE, hidden_size=128, tie_word_embeddings=True)
    out = tmp_path / "adopted"
    out.mkdir()
    adopt.run(BaseModelConfig(source=str(base)), out_dir=out, context=Context(out))
    return out


@pytest.mark.parametrize(("source", "lora"), [("model", None), ("model", LoraConfig(rank=2)),
                                              ("adopted", LoraConfig(rank=2))])
def test_what_is_sampled_is_as_likely_to_the_trainer_after_each_update(source, lora, tmp_path, request):
    model = request.getfixturevalue(source)
    policy, tokenizer = load_model(model, torch.device("cpu")), load_tokenizer(model)
    if lora:
        add_adapters(policy, lora, 0)
    config = RlhfConfig(steps=2, batch_size=8, learning_rate=1e-3, completion_tokens=12, temperature=0.7)
    draws = torch.rand((6, 12), generator=torch.Generator().manual_seed(1))
    with VllmSampler(tokenizer, config, model, tmp_path / "log", torch.device("cpu"), LogReporter()) as sampler:
        seen = []
        for update in range(3):
            completions = sampler.complete(policy, PROMPTS, draws)
            sequences = in_sequence(PROMPTS, completions.ids, completions.mask, 0)
            with torch.no_grad():
                expected, _ = token_log_probs(policy, sequences, config.temperature)
            new = completions.ids.shape[1]
            difference = ((expected[:, -new:] - completions.log_probs) * completions.mask).abs().sum() / \
                completions.mask.sum()
            assert difference < 1e-4, f"update {update}: {difference:.2g} nats a token"
            again = sampler.complete(policy, PROMPTS, draws)
            assert torch.equal(again.ids, completions.ids), "the same draws are the same completions"
            seen.append(completions.ids)
            with torch.no_grad():
                for parameter in policy.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1 * torch.randn_like(parameter))
        assert not torch.equal(seen[0][:, :4], seen[2][:, :4])
        asked = sampler._server.post("/tokenize", {"model": "policy", "messages": HELLO})
        assert asked["tokens"] == encode_prompt(tokenizer, HELLO), "the chat format is not that of training"
        process, folder = psutil.Process(sampler._server._process.pid), sampler._folder
        started = [process, *process.children(recursive=True)]
        reloads = (tmp_path / "log").read_text(errors="replace").count("Reloading and processing weights")
        assert reloads == 2, f"{reloads} reloads of weights that changed twice"
    assert not [each for each in psutil.wait_procs(started, 10)[1] if each.status() != psutil.STATUS_ZOMBIE]
    assert not folder.exists()


def test_a_training_that_is_killed_leaves_neither_vllm_nor_weights_in_memory(model, tmp_path):
    code = textwrap.dedent("""
        import sys, time, torch
        from pathlib import Path
        from genai_core.config.training import RlhfConfig
        from genai_core.context import LogReporter
        from genai_core.data.tokens.tokenizer import load_tokenizer
        from genai_core.export.model_directory import load_model
        from genai_core.training.alignment.vllm_sampler import VllmSampler
        directory = Path(sys.argv[1])
        config = RlhfConfig(steps=2, batch_size=8, learning_rate=1e-3, completion_tokens=4)
        sampler = VllmSampler(load_tokenizer(directory), config, directory, Path(sys.argv[2]), torch.device("cpu"),
                              LogReporter())
        sampler.complete(load_model(directory, torch.device("cpu")), [[5, 6, 7]])
        print(sampler._server._process.pid, sampler._folder, flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code, str(model), str(tmp_path / "log")], stdout=subprocess.PIPE,
                              text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    pid, folder = parent.stdout.readline().split()
    process = psutil.Process(int(pid))
    started = [process, *process.children(recursive=True)]
    parent.kill()
    parent.wait()
    assert not [each for each in psutil.wait_procs(started, 15)[1] if each.status() != psutil.STATUS_ZOMBIE]
    assert not Path(folder).exists()
    parent.stdout.close()
