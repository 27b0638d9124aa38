"""Completions by a vLLM server beside the training, which is given the policy's weights whenever they have changed.

vLLM starts from a copy of the instruct model's directory in memory (/dev/shm, where that has room, else in a temporary
folder). Before completions are sampled the weights, adapters merged, are written there, compared with what was written
last, and loaded in place (`reload_weights`); then its cache of prompts, which are keys and values of older weights, is
emptied.

A head that is tied to the embedding is written and loaded as a matrix of its own: a build for CPUs packs it when it
starts, and an embedding that is loaded later does not reach it (vLLM 0.32).

Shapes: B prompts, N new tokens at most.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.training import RlhfConfig
from genai_core.context import Reporter
from genai_core.data.tokens.batches import pad
from genai_core.data.tokens.tokenizer import TOKENIZER_FILES
from genai_core.errors import InputError
from genai_core.inference.generate import Completions
from genai_core.inference.vllm.command import find_vllm, require_readable, server_arguments
from genai_core.inference.vllm.server import VllmServer
from genai_core.models.adapters import adapters_of, without_adapters
from genai_core.models.huggingface import HuggingFaceModel
from genai_core.models.language_model import LanguageModel
from genai_core.training.alignment.samplers import Sampler
from genai_core.training.ranks import Ranks

NAME = "policy"
WEIGHTS = "model.safetensors"
HEAD = "lm_head.weight"
"""Name of the head of this project's own layout, Qwen3's."""
MEMORY = Path("/dev/shm")
REQUESTS = 64
"""Requests that are sent at a time."""
UNTIED = json.dumps({"tie_word_embeddings": False})


class VllmSampler(Sampler):
    """A vLLM server that starts when it is first needed, with its log in `log`. Raises InputError where there is no
    vLLM, where it does not read the model, and for several ranks."""

    holds_a_copy = True
    name = "vLLM"

    def __init__(self, tokenizer: Tokenizer, config: RlhfConfig, instruct: Path, log: Path, device: torch.device,
                 reporter: Reporter):
        super().__init__(tokenizer, config)
        if (ranks := Ranks.current().count) > 1:
            raise InputError(f"rlhf.sampler: vllm samples for a training of one process, and this one has {ranks} "
                             "ranks; take own, or set runtime.processes to 1")
        self._command = find_vllm()
        self._instruct = require_readable(instruct, device.type == "cuda")
        self._log, self._device, self._reporter = log, device, reporter
        self._folder: Path | None = None
        self._server: VllmServer | None = None

    def complete(self, policy: LanguageModel, prompts: list[list[int]], draws: Tensor | None = None) -> Completions:
        server = self._with_weights_of(policy)
        draws = torch.rand(len(prompts), 2) if draws is None else draws

        def ask(prompt: list[int], seed: int) -> tuple[list[int], list[float]]:
            return answer_of(server.post("/v1/completions", self._request(prompt, seed)))

        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(ask, prompts, seeds_of(draws)))
        ids, mask = pad([tokens for tokens, _ in answers], self.pad_id, "right")
        log_probs = torch.zeros(ids.shape)
        log_probs[mask] = torch.tensor(list(chain.from_iterable(values for _, values in answers)))
        return Completions(ids.to(self._device), mask.to(self._device), log_probs.to(self._device))

    def _request(self, prompt: list[int], seed: int) -> dict[str, Any]:
        return {"model": NAME, "prompt": prompt, "max_tokens": self.config.completion_tokens,
                "temperature": self.config.temperature, "seed": seed, "logprobs": 0, "return_token_ids": True,
                "stop_token_ids": sorted(self.end_ids)}

    def _with_weights_of(self, policy: LanguageModel) -> VllmServer:
        """The server, with the policy's weights."""
        if self._server is None or self._folder is None:
            self._server = self._start(policy)
        elif not holds(self._folder / WEIGHTS, weights_of(policy)):
            write(policy, self._folder)
            self._server.post("/collective_rpc", {"method": "reload_weights",
                                                  "kwargs": {"weights_path": str(self._folder)}})
            self._server.post("/reset_prefix_cache")
        return self._server

    def _start(self, policy: LanguageModel) -> VllmServer:
        self._reporter.note(f"starting vLLM to sample; its log is {self._log}")
        size = sum(4 * tensor.numel() for _, tensor in weights_of(policy))
        self._folder = Path(tempfile.mkdtemp(prefix="genai-rlhf-", dir=MEMORY if has_room(MEMORY, size) else None))
        try:
            for name in ("config.json", *TOKENIZER_FILES):
                shutil.copyfile(self._instruct / name, self._folder / name)
            write(policy, self._folder)
            arguments = server_arguments(self._folder, NAME, context=policy.context_length,
                                         slots=max(self.config.batch_size, self.config.evaluation_prompts),
                                         on_gpu=self._device.type == "cuda")
            server = VllmServer(
                [*self._command, *arguments, "--logprobs-mode", "processed_logprobs", "--hf-overrides", UNTIED],
                {"VLLM_SERVER_DEV_MODE": "1"}, self._log, self._folder)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.name = f"vLLM {server.version}"
        return server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def has_room(folder: Path, size: int) -> bool:
    """Whether a folder is there and has room for weights of `size` bytes, which are there twice while they change."""
    return folder.is_dir() and shutil.disk_usage(folder).free > 2.5 * size


def answer_of(answer: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Token ids of a completion, the end token included, and the log-probability of each."""
    choice = answer["choices"][0]
    return choice["token_ids"], choice["logprobs"]["token_logprobs"]


def seeds_of(draws: Tensor) -> list[int]:
    """A seed for each row of numbers from 0 to 1 (B, N), of which the first two count: so it depends on what they
    depend on, the config's seed, the step and the number of the completion."""
    first, second = (draws[:, :2].double() * 2 ** 24).long().unbind(1)
    return (first * 2 ** 24 + second).tolist()


def weights_of(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by the names of its `model.safetensors`, adapters merged into what is yielded, and a tied
    head by a name of its own."""
    adapters = {id(adapter.weight): adapter for _, adapter in adapters_of(model)}
    plain = without_adapters(model) if adapters else model
    if isinstance(plain, HuggingFaceModel):
        named = list(plain.network.named_parameters(remove_duplicate=False))
    else:
        named = list(plain.named_parameters())
        if HEAD not in dict(named) and plain.head_weight is not None:
            named.append((HEAD, plain.head_weight))
    for name, parameter in named:
        weight = parameter.detach()
        if adapter := adapters.get(id(parameter)):
            weight = weight + adapter.difference()
        yield name, weight.float().cpu().contiguous()


def write(model: LanguageModel, folder: Path) -> None:
    """Write the weights of a model, whole or not at all: what is there may be read still."""
    named = dict(weights_of(model))
    shared = {tensor.data_ptr() for tensor in named.values()}
    if len(shared) < len(named):      # safetensors stores nothing twice
        named = {name: tensor.clone() for name, tensor in named.items()}
    save_file(named, folder / "writing", metadata={"format": "pt"})
    (folder / "writing").replace(folder / WEIGHTS)


def holds(path: Path, weights: Iterator[tuple[str, Tensor]]) -> bool:
    """Whether a file has just these weights, to the bit."""
    with safe_open(path, "pt") as file:
        return all(torch.equal(file.get_tensor(name), weight) for name, weight in weights)
