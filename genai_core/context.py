"""What a stage is given beside its config and inputs, and what it returns.

Nothing of a `Context` is part of a key: it says how to run and who listens, never what to compute.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from genai_core.errors import InputError

logger = logging.getLogger("genai_core")

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Reporter(Protocol):
    """How a stage tells the outside world what it is doing, without knowing who listens."""

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        """`done` of `total` `unit` (for example tokens) are finished; `figures` are worth showing beside the bar."""

    def metrics(self, step: int, **values: float) -> None:
        """Points of curves: each value belongs to the curve of its name at `step`."""

    def note(self, text: str) -> None:
        """One line for the log that a person may want to read."""


class LogReporter:
    """Sends notes to the standard log and drops the rest: enough to run any stage with no service at all."""

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        pass

    def metrics(self, step: int, **values: float) -> None:
        pass

    def note(self, text: str) -> None:
        logger.info(text)


class Mapper(Protocol):
    """Calls a function of a module on each item, as Python's `map` does; the answers come in the items' order."""

    def __call__(self, function: Callable[[Item], Answer], items: Iterable[Item], /) -> Iterator[Answer]: ...


def serial(function: Callable[[Item], Answer], items: Iterable[Item], /) -> Iterator[Answer]:
    """The mapper of one process: the plain `map`."""
    return map(function, items)


@dataclass(frozen=True)
class Context:
    """How a stage is to run: who listens, on which device, where checkpoints go."""

    checkpoint_dir: Path
    """Directory of the checkpoints of a training stage."""
    reporter: Reporter = field(default_factory=LogReporter)
    root: Path = Path()
    """Where relative paths of the user's own files start."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    compile: str = "auto"
    """`auto`, `on` or `off`: whether training uses torch.compile."""
    deterministic: str = "auto"
    """`auto`, `on` or `off`: whether only kernels are used that give the same bytes each time."""
    recompute_activations: bool = False
    """Whether the backward pass makes the activations of a block again instead of keeping them."""
    shard_above: int = 10**9
    """Parameters above which each of several ranks has a part of the model, not a copy."""
    checkpoint_seconds: float = 30.0
    """Time between two checkpoints, in seconds."""
    stop_at: float | None = None
    """When training is to save a checkpoint and stop, in seconds since the epoch."""
    map: Mapper = serial
    """Calls a function on each shard of the data, in this process or in several; what is written is the same."""
    earlier: tuple[Path, ...] = ()
    """Artifacts that the same code of the stage made before, the newest first: what of them depends on the same bytes
    may be taken over, since it would be made again as it is."""


class Result(NamedTuple):
    """Figures of a stage, beside the files that it wrote."""

    metrics: Mapping[str, float]
    """The same whenever the same inputs are given: they are part of the artifact."""
    measurements: Mapping[str, Any] = MappingProxyType({})
    """Seconds, speeds and hardware of this one execution."""


def read_metrics(artifact: Path) -> dict[str, float]:
    """Metrics of a finished artifact, from its manifest, NaN where it has null. Raises InputError when there is none.
    """
    path = artifact / "manifest.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        return {name: math.nan if value is None else value for name, value in metrics.items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the manifest of an artifact ({error})") from None
