"""The engine's steps of a float32 transformer on a CPU, by a program in C that is compiled once for this machine.

At these sizes PyTorch spends its time on calls, not on arithmetic: `native.c` makes a whole step, or reads prompts, in
one call (docs/LOG.md has the figures). Where there is no C compiler, where `GENAI_NATIVE=0` says so, and for any model
that is not plainly a `Transformer` in float32 there is no such step, and the engine's PyTorch step does the same.
"""

import ctypes
import logging
import os
import time
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.inference.compilation import NoLibrary, open_library
from genai_core.models.cache import KeyValueCache
from genai_core.models.transformer import (
    Attention,
    Block,
    Decoder,
    FeedForward,
    RMSNorm,
    TokenEmbedding,
    Transformer,
    rotary_angles,
)

logger = logging.getLogger("genai_core")

SETTING = "GENAI_NATIVE"
SOURCE = Path(__file__).with_suffix(".c")
SOURCE_DIGEST = "f0f7e31f78519f05ef83609423479161a5a55eb3642c50f41bbb4b4e2fe87eb2"
"""SHA-256 of `native.c`: by this line it is part of the keys of stages that decode, and no other file is compiled."""
DIRECT = 3
"""Up to so many rows the weights are read as they are: a product is no faster than memory. For more they are packed."""
ROWS = 64
"""Tokens of prompts that are read at once, where there are no more slots than that."""
WORK_OF_A_THREAD = 250_000
"""Multiplications of a step for which one more thread is worth waiting for."""
TRIAL = 50
"""How many times as long as the trial of another number of threads nothing is tried."""
PLAIN = {Transformer, Decoder, nn.ModuleList, Block, Attention, FeedForward, RMSNorm, nn.Linear, TokenEmbedding}


class _Layer(Structure):
    _fields_ = [(name, c_void_p) for name in ("norm", "query", "key", "value", "query_norm", "key_norm", "out",
                                              "feed_norm", "gate", "up", "down", "keys", "values")]


class _Model(Structure):
    _fields_ = [*((name, c_int32) for name in ("vocabulary", "hidden", "layers", "heads", "shared", "head", "wide",
                                               "slots", "capacity", "rows", "packed")),
                ("epsilon", c_float),
                *((name, c_void_p) for name in ("embedding", "output", "norm", "cosine", "sine")),
                ("layer", POINTER(_Layer)), ("scratch", c_void_p), ("places", c_void_p)]


class Pace:
    """Whether steps are made by all threads or by one, whichever is faster now.

    Threads wait for each other some twenty times a step, and where other programs keep the processors busy, each time
    for one that the system has put aside for milliseconds: beside two busy processes on two cores, two threads took 76
    ms for what one does in 2. So the other way is tried now and then, for a fiftieth of the time at most.
    """

    def __init__(self) -> None:
        self.alone = False
        self._seconds: float | None = None
        self._next_trial = 0.0

    def make(self, step: Callable[[int], int], threads: int) -> int:
        """What `step` returns, which is called with a number of threads."""
        if threads == 1:
            return step(1)
        began = time.perf_counter()
        trial = self._seconds is not None and began >= self._next_trial
        alone = self.alone != trial
        result = step(1 if alone else threads)
        ended = time.perf_counter()
        seconds = ended - began
        if self._seconds is not None and trial:
            if seconds < self._seconds:
                self.alone = alone
            self._next_trial = ended + TRIAL * seconds
        else:
            self._seconds = seconds
        return result


_pace = Pace()
"""Of this process: short answers of many engines learn from each other."""


class NativeStep:
    """The step of a model over the rows of a cache, with the weights as they are now."""

    def __init__(self, library: ctypes.CDLL, model: Transformer, cache: KeyValueCache):
        shape, slots = model.config, len(cache.lengths)
        rows = max(slots, ROWS)
        self._library, self._cache, self._vocabulary = library, cache, shape.vocab_size
        self._kept: list[Any] = []      # what the structures point to
        self._weights = weights_of(model)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self._threads = max(1, min(torch.get_num_threads(), slots * parameters // WORK_OF_A_THREAD))
        self._logits = torch.zeros(slots, shape.vocab_size)
        capacity, decoder = cache.keys[0].shape[2], model.model
        cosine, sine = rotary_angles(torch.arange(capacity)[None], shape.head_dim, shape.rope_theta)
        matrix = self._packed if slots > DIRECT else self._kept_as_it_is
        layers = (_Layer * len(decoder.layers))()
        for layer, block, keys, values in zip(layers, decoder.layers, cache.keys, cache.values, strict=True):
            assert isinstance(block, Block)
            attention, feed_forward = block.self_attn, block.mlp
            pointers = {
                "norm": block.input_layernorm, "query_norm": attention.q_norm, "key_norm": attention.k_norm,
                "feed_norm": block.post_attention_layernorm}
            matrices = {
                "query": attention.q_proj, "key": attention.k_proj, "value": attention.v_proj, "out": attention.o_proj,
                "gate": feed_forward.gate_proj, "up": feed_forward.up_proj, "down": feed_forward.down_proj}
            for name, norm in pointers.items():
                setattr(layer, name, self._kept_as_it_is(norm.weight))
            for name, linear in matrices.items():
                setattr(layer, name, matrix(linear.weight))
            layer.keys, layer.values = self._kept_as_it_is(keys), self._kept_as_it_is(values)
        embedding = decoder.embed_tokens.weight
        output = embedding if model.lm_head is None else model.lm_head.weight
        self._model = _Model(
            shape.vocab_size, shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads,
            shape.num_key_value_heads, shape.head_dim, shape.intermediate_size, slots, capacity, rows, slots > DIRECT,
            shape.rms_norm_eps, self._kept_as_it_is(embedding), matrix(output),
            self._kept_as_it_is(decoder.norm.weight), self._kept_as_it_is(cosine), self._kept_as_it_is(sine), layers)
        scratch = torch.empty(library.scratch_size(self._model, self._threads))
        self._model.scratch = self._kept_as_it_is(scratch)
        self._model.places = self._kept_as_it_is(torch.empty(4 * rows, dtype=torch.int32))

    def logits(self, ids: Tensor, alive: Tensor) -> Tensor:
        """Logits (B, V) after one more token (B,) of each row that is alive (B,); those of other rows say nothing. The
        cache grows by the tokens. Raises RuntimeError where a row has no room, or for a token that is none."""
        rows = self._logits.shape[:1]
        lengths = self._cache.lengths
        for tensor, dtype in ((ids, torch.int64), (lengths, torch.int64), (alive, torch.bool)):
            if tensor.dtype != dtype or tensor.shape != rows or not tensor.is_contiguous():
                raise RuntimeError("the step in C was given tensors of another shape")
        places = [tensor.data_ptr() for tensor in (ids, lengths, alive, self._logits)]
        done = _pace.make(lambda threads: self._library.decode(self._model, *places, threads), self._most_threads())
        if done < 0:
            raise RuntimeError("a row of the cache is full, or a token is not in the vocabulary")
        return self._logits

    def read(self, prompts: Sequence[Sequence[int]], slots: list[int]) -> Tensor:
        """Logits (P, V) after prompts, with which the rows `slots` of the cache begin anew."""
        ids, counts, rows = (torch.tensor(each) for each in ([token for prompt in prompts for token in prompt],
                                                             [len(prompt) for prompt in prompts], slots))
        logits = torch.empty(len(prompts), self._vocabulary)
        done = self._library.read_prompts(self._model, ids.data_ptr(), counts.data_ptr(), rows.data_ptr(), len(prompts),
                                          self._cache.lengths.data_ptr(), logits.data_ptr(),
                                          1 if _pace.alone else self._most_threads())
        if done < 0:
            raise RuntimeError("a prompt is longer than a row of the cache, or holds a token not in the vocabulary")
        return logits

    def _most_threads(self) -> int:
        return min(torch.get_num_threads(), self._threads)

    def is_of(self, model: nn.Module) -> bool:
        """Whether a model still computes this step, with the weights that it was made with."""
        return self._weights == weights_of(model) and is_plain(model)

    def _kept_as_it_is(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _packed(self, weight: Tensor) -> int:
        """Weights (N, K) in panels of outputs."""
        outputs, inputs = weight.shape
        width = self._library.panel_width()
        panels = torch.empty(-(-outputs // width) * width * inputs)
        self._library.pack(panels.data_ptr(), weight.data_ptr(), outputs, inputs)
        return self._kept_as_it_is(panels)


def native_step(model: nn.Module, cache: Any) -> NativeStep | None:
    """The step in C of a model over a cache; None where PyTorch has to do it."""
    if not has_native_step(model):
        return None
    library = compiled_library()
    assert isinstance(model, Transformer) and library is not None
    return NativeStep(library, model, cache)


def has_native_step(model: nn.Module) -> bool:
    """Whether a model is decoded by the step in C."""
    return os.environ.get(SETTING, "1") != "0" and is_plain(model) and compiled_library() is not None


def is_plain(model: nn.Module) -> bool:
    """Whether a model computes what `native.c` does: a `Transformer` in float32 on a CPU without anything added."""
    parts, parameters = list(model.modules()), list(model.parameters())
    return (type(model) is Transformer and not nn.modules.module._has_any_global_hook()
            and all(type(part) in PLAIN and not part._forward_hooks and not part._forward_pre_hooks
                    and not {"forward", "hidden", "logits", "project", "read"} & vars(part).keys() for part in parts)
            and all(part.bias is None for part in parts if isinstance(part, nn.Linear))
            and all(type(parameter) is nn.Parameter and parameter.dtype == torch.float32 and parameter.is_contiguous()
                    and parameter.device.type == "cpu" and not parameter.is_inference() for parameter in parameters))


def weights_of(model: nn.Module) -> list[tuple[int, int]]:
    """Where the weights of a model are, and how often they were changed there."""
    return [(parameter.data_ptr(), parameter._version) for parameter in model.parameters()]


@cache
def compiled_library() -> ctypes.CDLL | None:
    """`native.c` as a library; None, which is logged, where it cannot be had."""
    try:
        library = open_library(SOURCE, SOURCE_DIGEST)
    except NoLibrary as error:
        logger.info("decoding with PyTorch, without the step in C: %s", error)
        return None
    library.scratch_size.argtypes, library.scratch_size.restype = [POINTER(_Model), c_int32], c_int64
    library.pack.argtypes, library.pack.restype = [c_void_p, c_void_p, c_int32, c_int32], None
    library.read_prompts.argtypes = [POINTER(_Model), *[c_void_p] * 3, c_int32, c_void_p, c_void_p, c_int32]
    library.decode.argtypes = [POINTER(_Model), *[c_void_p] * 4, c_int32]
    return library
