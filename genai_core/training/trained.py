"""What a training comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from genai_core.context import Result
from genai_core.training.alignment.monitors import Verdict
from genai_core.training.curves import Curves, last_values, save_curves


@dataclass(frozen=True)
class Stopped:
    """What a monitor ended."""

    verdict: Verdict
    step: int
    """Steps that were made."""
    kept: int
    """Steps after which the state was that is kept."""


@dataclass(frozen=True)
class Trained:
    """What a run of the loop leaves beside the weights."""

    curves: Curves
    metrics: dict[str, float]
    """Figures that are the same for every run with the same inputs."""
    measurements: dict[str, Any]
    """Seconds, speed and hardware of this run."""
    stopped: Stopped | None = None
    """Where a monitor ended it."""

    def outcome(self, model: nn.Module, out_dir: Path, *prefixes: str,
                figures: Mapping[str, float] = MappingProxyType({})) -> Result:
        """Write the curves beside the model. The result has the loop's metrics, the last points of the curves whose
        names begin with one of `prefixes`, the number of the model's parameters, and `figures`."""
        save_curves(self.curves, out_dir)
        last = {name: value for prefix in prefixes for name, value in last_values(self.curves, prefix).items()}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return Result(self.metrics | last | {"parameters": parameters, **figures}, self.measurements)
