"""Whether a training is worth compiling."""

from collections.abc import Callable
from typing import Any

import torch

from genai_core.training.objectives.objective import Objective

FLOPS_THAT_PAY = {"cpu": 2.5e13, "cuda": 1e16}
"""Runs with more floating-point operations than this earn the time of torch.compile back (docs/LOG.md)."""


def pays(objective: Objective, wanted: str, device: torch.device) -> bool:
    """Whether `wanted`, which is `on`, `off` or `auto`, comes to compiling the loss of this objective."""
    if wanted != "auto":
        return wanted == "on"
    return objective.fixed_shapes and objective.flops > FLOPS_THAT_PAY.get(device.type, float("inf"))


def loss_function(objective: Objective, compiled: bool) -> Callable[..., Any]:
    """The loss of an objective, compiled for the shapes that it meets or as it is."""
    return torch.compile(objective.loss, dynamic=False) if compiled else objective.loss
