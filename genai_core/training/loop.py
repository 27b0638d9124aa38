"""The one training loop. An objective says what a batch is and what its loss is; the loop does everything else.

Which examples a step sees is a pure function of the step's number, so that the data position of a checkpoint is the
step itself and a resumed run sees exactly what an uninterrupted one would have seen.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.config.training import TrainConfig
from genai_core.context import Context, Reporter, Result
from genai_core.errors import BudgetSpent, TrainingDiverged
from genai_core.hardware import autocast, choose_device, choose_precision, describe, prepare
from genai_core.training import checkpoints
from genai_core.training.curves import Curves, finite, last_values, save_curves
from genai_core.training.interruption import Interruption
from genai_core.training.objectives.objective import Batch, Objective
from genai_core.training.optimizers import build_optimizers, learning_rate_factor

COMPILE_FLOPS = {"cpu": 2.5e13, "cuda": 1e16}
"""Runs with more floating-point operations than this earn the time of torch.compile back (docs/LOG.md)."""

MAX_SKIPPED_STEPS = 10
"""Steps in a row whose loss or gradient may be infinite or NaN before training stops."""


@dataclass(frozen=True)
class Trained:
    """What a run of the loop leaves beside the weights."""

    curves: Curves
    metrics: dict[str, float]
    """Figures that are the same for every run with the same inputs."""
    measurements: dict[str, Any]
    """Seconds, speed and hardware of this run."""

    def outcome(self, model: nn.Module, out_dir: Path, *prefixes: str) -> Result:
        """Write the curves beside the model. The result has the loop's metrics, the last points of the curves whose
        names begin with one of `prefixes`, and the number of the model's parameters."""
        save_curves(self.curves, out_dir)
        last = {name: value for prefix in prefixes for name, value in last_values(self.curves, prefix).items()}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return Result(self.metrics | last | {"parameters": parameters}, self.measurements)


def train(model: nn.Module, objective: Objective, config: TrainConfig, context: Context) -> Trained:
    """Train `model` in place, from the newest checkpoint of `context.checkpoint_dir` if there is one.

    Raises TrainingDiverged when the loss is not finite and the policy, or ten such steps in a row, say to stop, and
    when every step was skipped; BudgetSpent after `context.stop_at`, but not before one step is done.
    """
    device = choose_device(context.device)
    prepare(device)
    precision = choose_precision(device)
    torch.manual_seed(config.seed)
    players = objective.players(model)
    optimizers_of = {name: build_optimizers(part, config, device) for name, part in players.items()}
    optimizers = [optimizer for own in optimizers_of.values() for optimizer in own]
    peaks = {id(optimizer): [group["lr"] for group in optimizer.param_groups] for optimizer in optimizers}
    curves: Curves = {}
    start, done_before, skipped = 0, 0, 0
    state = checkpoints.restore(context.checkpoint_dir, model, optimizers, context.reporter)
    if state:
        start, done_before, skipped, curves = state["step"], state["done"], state["skipped"], state["curves"]
        context.reporter.note(f"continuing from the checkpoint at step {start} of {objective.steps}")
        _replay(curves, context.reporter)
    use_compile = context.compile == "on" or (
        context.compile == "auto" and objective.fixed_shapes and objective.flops > COMPILE_FLOPS[device.type])
    loss_function = torch.compile(objective.loss, dynamic=False) if use_compile else objective.loss
    context.reporter.note(f"{objective.steps} steps on {device} ({describe(device)}), {str(precision)[6:]}, "
                      f"{'compiled' if use_compile else 'eager'}")
    model.train()
    done, skipped_in_a_row = done_before, 0
    began = last_saved = time.monotonic()
    evaluating = 0.0
    with Interruption() as interruption:
        for step in range(start, objective.steps):
            batch = objective.batch(step)
            targets = objective.targets(batch)
            sums = _backward(loss_function, batch, targets, config.accumulation_steps, device, precision)
            player = objective.player(step)
            norm = torch.nn.utils.clip_grad_norm_(players[player].parameters(), config.gradient_clip)
            values = {name: value.item() for name, value in {**sums, "gradient_norm": norm}.items()}
            factor = learning_rate_factor(step, objective.steps, config)
            if math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"]):
                for optimizer in optimizers_of[player]:
                    for group, rate in zip(optimizer.param_groups, peaks[id(optimizer)], strict=True):
                        group["lr"] = rate * factor
                    optimizer.step()
                objective.after_step()
                skipped_in_a_row = 0
            else:
                skipped, skipped_in_a_row = skipped + 1, skipped_in_a_row + 1
                context.reporter.note(f"step {step}: loss {values['loss']}, gradient norm {values['gradient_norm']}: "
                                  "skipped")
                if config.on_non_finite == "stop" or skipped_in_a_row >= MAX_SKIPPED_STEPS:
                    raise TrainingDiverged(f"the loss is not finite at step {step} of {objective.steps} "
                                           f"({skipped_in_a_row} in a row); the last good state is the checkpoint in "
                                           f"{context.checkpoint_dir}; lower the learning rate")
            model.zero_grad(set_to_none=True)
            done += objective.size(batch)
            speed = (done - done_before) / (time.monotonic() - began - evaluating)
            _record(curves, step + 1, {**values, **objective.figures(batch), "learning_rate_factor": factor},
                    context.reporter)
            shown = values["loss"] if math.isfinite(values["loss"]) else 0.0
            context.reporter.progress(done, done / (step + 1) * objective.steps, objective.unit, loss=shown,
                                  per_second=speed)
            if step + 1 in objective.evaluation_steps or step + 1 == objective.steps:
                before = time.monotonic()
                model.eval()
                figures = objective.evaluate(step + 1)
                model.train()
                evaluating += time.monotonic() - before
                _record(curves, step + 1, figures, context.reporter)
                if figures:
                    context.reporter.note(f"step {step + 1}: " + ", ".join(f"{name} {value:.4g}"
                                                                      for name, value in figures.items()))
            due = time.monotonic() - last_saved > context.checkpoint_seconds
            spent = context.stop_at is not None and time.time() >= context.stop_at and step + 1 < objective.steps
            if (due and step + 1 < objective.steps) or interruption.requested or spent:
                _save(context, step + 1, model, optimizers, done, skipped, curves)
                last_saved = time.monotonic()
                if interruption.requested:
                    context.reporter.note(f"{interruption.requested.name}: saved a checkpoint at step {step + 1} of "
                                      f"{objective.steps}; the same run continues from it")
                    interruption.deliver()
                if spent:
                    raise BudgetSpent(f"saved a checkpoint at step {step + 1} of {objective.steps}")
            interruption.defer()      # not before: the first step may compile for a minute, with nothing new to save
    model.eval()
    seconds = time.monotonic() - began
    if skipped == objective.steps:
        raise TrainingDiverged(f"each of the {skipped} steps was skipped: their loss or gradient was not finite; "
                               "lower the learning rate")
    if skipped:
        context.reporter.note(f"{skipped} of {objective.steps} steps were skipped: their loss or gradient was not "
                              "finite")
    return Trained(
        curves=curves,
        metrics={"loss": finite(curves["loss"])[-1][1], "steps": objective.steps, objective.unit: done,
                 "skipped_steps": skipped, "flops": objective.flops},
        measurements={"training_seconds": seconds, "evaluation_seconds": evaluating, "resumed_from_step": start,
                      f"{objective.unit}_per_second": (done - done_before) / max(seconds - evaluating, 1e-9),
                      "device": str(device), "compiled": use_compile, "precision": str(precision)[6:]})


def _backward(loss_function: Any, batch: Batch, targets: float, micro_batches: int, device: torch.device,
              precision: torch.dtype) -> dict[str, Tensor]:
    """Gradients of the mean loss over all targets of the whole batch, whatever it is cut into; the mean values."""
    totals: dict[str, Tensor] = {}
    parts = {name: tensor.tensor_split(micro_batches) for name, tensor in batch.items()}
    for number in range(micro_batches):
        part = {name: pieces[number] for name, pieces in parts.items()}
        with autocast(device, precision):
            loss, others = loss_function(part)
        loss = loss / targets
        loss.backward()
        for name, value in {"loss": loss.detach(), **{key: value / targets for key, value in others.items()}}.items():
            totals[name] = totals[name] + value if name in totals else value
    return totals


def _record(curves: Curves, step: int, values: dict[str, float], reporter: Reporter) -> None:
    for name, value in values.items():
        curves.setdefault(name, []).append((step, value if math.isfinite(value) else None))
    reporter.metrics(step, **{name: value for name, value in values.items() if math.isfinite(value)})


def _replay(curves: Curves, reporter: Reporter) -> None:
    """Tell the reporter the points from before the interruption, so that its curves are whole."""
    by_step: dict[int, dict[str, float]] = {}
    for name, points in curves.items():
        for step, value in finite(points):
            by_step.setdefault(step, {})[name] = value
    for step, values in sorted(by_step.items()):
        reporter.metrics(step, **values)


def _save(context: Context, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], done: int,
          skipped: int, curves: Curves) -> None:
    checkpoints.save(context.checkpoint_dir, step, model, optimizers,
                     {"done": done, "skipped": skipped, "curves": curves})
