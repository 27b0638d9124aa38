"""What a training stage returns once its model is trained."""

from pathlib import Path

from torch import nn

from genai_core.context import Result
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import Trained


def outcome(trained: Trained, model: nn.Module, out_dir: Path, *prefixes: str) -> Result:
    """Write the curves beside the model. The result has the loop's metrics, the last points of the curves whose names
    begin with one of `prefixes`, and the number of the model's parameters."""
    save_curves(trained.curves, out_dir)
    last = {name: value for prefix in prefixes for name, value in last_values(trained.curves, prefix).items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Result(trained.metrics | last | {"parameters": parameters}, trained.measurements)
