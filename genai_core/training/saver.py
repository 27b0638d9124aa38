"""Saving checkpoints beside the training: the state is copied, and a thread writes the copy while training goes on."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genai_core.training import checkpoints, sharded_checkpoints
from genai_core.training.sharding import is_sharded

LARGEST_SHARE = 0.02
"""Most of a training's time that may go into saving, as far as training has to wait for it."""


class Saver:
    """Writes the checkpoints of one training, one after the other; entered, it leaves none half written.

    Training waits for the copy, and for the write before when that is not over yet. Where this takes long, checkpoints
    come less often than every `seconds`, so that at most LARGEST_SHARE of the time is lost.
    """

    def __init__(self, directory: Path, seconds: float, model: nn.Module, optimizers: list[torch.optim.Optimizer]):
        """Of a training in parts, every rank makes one, since each saves its own."""
        self.directory = directory
        self.seconds = seconds
        self.model = model
        self.optimizers = optimizers
        self.waited = 0.0
        """Seconds for which training stood still."""
        self._last = time.monotonic()
        self._interval = seconds
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._write: Future[None] | None = None
        self.in_parts = is_sharded(model)
        self._group = None
        if self.in_parts:
            sharded_checkpoints.require_shared(directory)
            self._group = dist.new_group(backend="gloo")

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last > self._interval

    def save(self, step: int, state: dict[str, Any], guard: dict[str, Tensor]) -> None:
        """Begin to save the training as it is after `step` steps. Raises what the write before raised."""
        began = time.monotonic()
        self.wait()
        if self._group:
            tensors = checkpoints.tensors_of(self.model, self.optimizers, guard)
            self._write = self._writer.submit(checkpoints.begin_in_parts(self.directory, step, tensors, state,
                                                                         self._group))
        else:
            tensors = checkpoints.snapshot(self.model, self.optimizers, guard)
            self._write = self._writer.submit(checkpoints.write, self.directory, step, tensors, state)
        self._last = time.monotonic()
        self.waited += self._last - began
        self._interval = max(self.seconds, (self._last - began) / LARGEST_SHARE)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk. Raises what writing it raised."""
        if self._write:
            self._write.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._writer.shutdown(wait=True)
        if error is None:
            self.wait()
