"""How every family trains a model: the one loop, then the model directory with its curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genai_core.config.training import TrainConfig
from genai_core.context import Context, Result
from genai_core.families.directory import save_family_model
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.objectives.objective import Objective


def train_family_model(kind: str, model_class: Callable[[Any], nn.Module], shape: Any,
                       objective: Callable[..., Objective], config: TrainConfig, context: Context, out_dir: Path, *,
                       figures: tuple[str, ...], tokenizer_dir: Path | None = None, counted: str = "") -> Result:
    """Train a new model of `shape`, a dataclass, for the objective that `objective(model, device=…)` gives; write its
    directory, of kind `kind`, to `out_dir`.

    The result has the loop's metrics, the last points of the curves whose names begin with one of `figures`, and the
    number of parameters, of the part of the model that `counted` names, by default of all.
    """
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    model = model_class(shape).to(device)
    trained = train(model, objective(model, device=device), config, context)
    save_family_model(model, kind, shape, out_dir, tokenizer_dir)
    return trained.outcome(model.get_submodule(counted), out_dir, *figures)
