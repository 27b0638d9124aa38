"""The one training loop. An objective says what a batch is and what its loss is; the loop does everything else.

Which examples a step sees is a pure function of the step's number, so that the data position of a checkpoint is the
step itself and a resumed run sees exactly what an uninterrupted one would have seen. What is to be known of the device
is read some steps later, all at once, so that no step waits for it (on a Mac's GPU: `take_step` does).
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genai_core.config.training import TrainConfig
from genai_core.context import Context, Reporter
from genai_core.errors import BudgetSpent, InputError, RewardFailed, TrainingDiverged
from genai_core.hardware import autocast, choose_device, choose_precision, describe, prepare
from genai_core.models.adapters import has_adapters, share_of_training, trained_parameters
from genai_core.models.four_bit import number_of_weights
from genai_core.models.huggingface import HuggingFaceDecoder
from genai_core.models.transformer import Decoder
from genai_core.training import checkpoints, compilation
from genai_core.training.alignment.monitors import Verdict
from genai_core.training.curves import Curves, finite
from genai_core.training.guards import Guard, keep_batch
from genai_core.training.interruption import Interruption
from genai_core.training.objectives.objective import Batch, Objective
from genai_core.training.optimizers import build_optimizers, learning_rate_factor, rates, take_step
from genai_core.training.ranks import Ranks, SharedLoss
from genai_core.training.saver import Saver
from genai_core.training.sharding import beside, whole_of
from genai_core.training.trained import Stopped, Trained

STEPS_BETWEEN_READINGS = {"cuda": 16, "mps": 16}
"""Steps after which losses are read from a device that works on its own; elsewhere reading is free: after each."""
MAX_SKIPPED_STEPS = 10
"""Steps in a row that may be skipped before training goes back to a checkpoint, or stops."""
GOOD = "good"
"""Folder, in that of the checkpoints, of those that the monitors of a training found good."""
MAX_REWINDS = 2
"""How often a training may go back before it stops."""


def train(model: nn.Module, objective: Objective, config: TrainConfig, context: Context) -> Trained:
    """Train `model` in place, from the newest checkpoint of `context.checkpoint_dir` if there is one.

    Raises TrainingDiverged when a step must be skipped and the policy says to stop, when ten in a row were and there is
    no checkpoint to go back to, or it did not help, and when every step was skipped; BudgetSpent after
    `context.stop_at`, but not before one step is done; RewardFailed when a reward gives no number for an answer, with
    what was trained before in a checkpoint.
    """
    torch.manual_seed(config.seed)
    training = _Training(model, objective, config, context)
    model.train()
    with Interruption() as interruption, training.saver, training.good or nullcontext():
        training.keep_the_beginning()
        training.evaluate_if_due()      # where a reward failed in it, it is still to be done
        while training.step < objective.steps and not training.stopped:
            try:
                training.advance()
                training.evaluate_if_due()
            except RewardFailed:      # before the step moved anything, or after
                training.save_before_failure()
                raise
            if not training.stopped:
                training.save_if_due(interruption)
            interruption.defer()      # not before: the first step may compile for a minute, with nothing new to save
    training.loss.put_together()
    model.eval()
    return training.finished()


class _Training:
    """A training under way: what a checkpoint keeps of it, and what makes a step of it."""

    def __init__(self, model: nn.Module, objective: Objective, config: TrainConfig, context: Context):
        self.model, self.objective, self.config, self.context = model, objective, config, context
        self.ranks = Ranks.current()
        self.device = choose_device(context.device)
        prepare(self.device, context.deterministic)
        for part in model.modules():
            if isinstance(part, Decoder | HuggingFaceDecoder):
                part.recompute_activations = context.recompute_activations
        self.precision = choose_precision(self.device)
        self.compiled = compilation.pays(objective, context.compile, self.device)
        self.loss = SharedLoss(self.ranks, model, objective, self.device, self.compiled, context.shard_above)
        if self.loss.sharded and config.optimizer == "sgd":
            raise InputError("optimizer: PyTorch has no sgd for a model in parts; take adamw or muon, or raise "
                             "runtime.shard_above")
        self.players = objective.players(model)
        self.buffers = list(model.buffers())
        self.optimizers_of = {name: build_optimizers(part, config, self.device) for name, part in self.players.items()}
        self.optimizers = [optimizer for own in self.optimizers_of.values() for optimizer in own]
        self.peaks = {id(optimizer): [group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers}
        self.guard = Guard(self.players, config.skip_above_deviations, self.device)
        self.step, self.passed_over, self.done, self.skipped, self.rewinds, self.evaluated = 0, 0, 0, 0, 0, 0
        self.streaks: dict[str, list[int]] = {}
        """Of each player, the last steps of its own that were skipped in a row."""
        self.curves: Curves = {}
        self._restore()
        if self.step:
            context.reporter.note(f"continuing from the checkpoint at step {self.step} of {objective.steps}")
            _replay(self.curves, context.reporter)
        self.first_step, self.done_before = self.step, self.done
        ranks = f"{self.ranks.count} ranks {'with parts ' if self.loss.sharded else ''}of "
        where = f"{ranks if self.ranks.count > 1 else ''}{self.device}"
        context.reporter.note(f"{objective.steps} steps on {where} ({describe(self.device)}), "
                              f"{str(self.precision)[6:]}, {'compiled' if self.compiled else 'eager'}, {rates(config)}")
        self.saver = Saver(context.checkpoint_dir, context.checkpoint_seconds, model, self.optimizers)
        self.good = Saver(context.checkpoint_dir / GOOD, math.inf, model, self.optimizers) if objective.monitored \
            else None
        """What the monitors found good."""
        self.stopped: Stopped | None = None
        self.unread: list[_Step] = []
        self.began = time.monotonic()
        self.evaluating = 0.0

    def advance(self) -> None:
        """Make one step: of its loss and of whether it counts the host learns later."""
        number = self.step + self.passed_over
        batch = self._batch(number)
        player = self.objective.player(number)
        buffers = [buffer.clone() for buffer in self.buffers]
        sums = self._backward(batch)
        norm = whole_of(torch.nn.utils.clip_grad_norm_(self.players[player].parameters(), self.config.gradient_clip))
        skip = self.guard.skip(player, sums["loss"], norm)
        factor = learning_rate_factor(self.step, self.objective.steps, self.config)
        for optimizer in self.optimizers_of[player]:
            for group, rate in zip(optimizer.param_groups, self.peaks[id(optimizer)], strict=True):
                group["lr"] = rate * factor
            take_step(optimizer, skip)
        for buffer, before in zip(self.buffers, buffers, strict=True):      # statistics of batch normalisation
            buffer.copy_(torch.where(skip > 0, before, buffer))
        self.model.zero_grad(set_to_none=True)
        self.objective.after_step(beside(skip, next(self.players[player].parameters())))
        self.step += 1
        if number % self.objective.steps_of_a_batch == 0:
            self.done += self.objective.size(batch) * (self.ranks.count if self.objective.sampled else 1)
        self.unread.append(_Step(self.step, player, {**sums, "gradient_norm": norm, "skip": skip}, batch, factor))
        if len(self.unread) >= STEPS_BETWEEN_READINGS.get(self.device.type, 1):
            self.read()

    def _batch(self, number: int) -> Batch:
        return self.loss.call(self.objective.batch, number) if self.objective.sampled else self.objective.batch(number)

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the mean loss over all targets of the whole batch, whatever it is cut into; the mean values."""
        totals: dict[str, Tensor] = {}
        targets = torch.as_tensor(self.objective.targets(batch), device=self.device)
        if self.objective.sampled:
            targets = self.ranks.all_reduce({"targets": targets})["targets"]
        count = self.config.accumulation_steps
        for name, tensor in batch.items():
            if len(tensor) % count:
                raise InputError(f"accumulation_steps: {count} micro-batches do not divide {len(tensor)} examples "
                                 f"({name}{' of a rank' if self.objective.sampled and self.ranks.count > 1 else ''}) "
                                 "evenly; take fewer, or a batch size that they and the ranks divide")
        parts = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
        for number in range(count):
            part = {name: pieces[number] for name, pieces in parts.items()}
            part = part if self.objective.sampled else self.ranks.share(part)
            with self.loss.no_sync() if number + 1 < count else nullcontext():
                with autocast(self.device, self.precision):
                    loss, others = self.loss(part)
                (loss / targets * self.loss.scale).backward()
            for name, value in {"loss": loss.detach(), **others}.items():
                value = value / targets
                totals[name] = totals[name] + value if name in totals else value
        return self.ranks.all_reduce(totals)

    def read(self) -> None:
        """Learn what became of the last steps; go back where too many of them did not count."""
        if not self.unread:
            return
        numbers = torch.stack([value.float() for each in self.unread for value in each.values.values()]).tolist()
        unread, self.unread = self.unread, []
        for each in unread:
            values = dict(zip(each.values, numbers, strict=False))
            numbers = numbers[len(values):]
            loss = values["loss"]
            if values.pop("skip"):
                self._skip(each, values)
                if len(self.streaks[each.player]) >= MAX_SKIPPED_STEPS:
                    self._go_back(each)
                    return
                values = dict.fromkeys(values, math.nan)      # a gap: the weights know nothing of it
            else:
                self.streaks.pop(each.player, None)
            self._record(each.number, {**values, **self._figures(each.batch), "learning_rate_factor": each.factor})
        speed = (self.done - self.done_before) / (time.monotonic() - self.began - self.evaluating)
        batches, all_batches = (-(-steps // self.objective.steps_of_a_batch)
                                for steps in (self.step, self.objective.steps))
        self.context.reporter.progress(self.done, self.done / batches * all_batches, self.objective.unit,
                                       per_second=speed, **({"loss": loss} if math.isfinite(loss) else {}))

    def _figures(self, batch: Batch) -> dict[str, float]:
        figures = self.objective.figures(batch)
        if not self.objective.sampled or not figures:
            return figures
        sums = self.ranks.all_reduce({name: torch.tensor(value, device=self.device) for name, value in figures.items()})
        return {name: value.item() / self.ranks.count for name, value in sums.items()}

    def _skip(self, each: "_Step", values: dict[str, float]) -> None:
        self.skipped += 1
        self.streaks.setdefault(each.player, []).append(each.number)
        kept = keep_batch(self.context.checkpoint_dir, each.number, each.batch) if self.ranks.leads else None
        where = f"; its batch is {kept}" if kept else ""
        self.context.reporter.note(f"step {each.number - 1}: loss {values['loss']:.4g}, gradient norm "
                                   f"{values['gradient_norm']:.4g}: skipped{where}")
        if self.config.on_non_finite == "stop":
            raise TrainingDiverged(self._divergence(each))

    def _go_back(self, last: "_Step") -> None:
        """To the last checkpoint before the steps that did not count, and past the batches up to `last`."""
        self.saver.wait()
        size = self.objective.steps_of_a_batch
        next_batch = -(-(last.number + self.passed_over) // size) * size      # past the rest of what was sampled
        rewinds, skipped = self.rewinds, self.skipped
        if rewinds >= MAX_REWINDS or not self._restore(before=self.streaks[last.player][0]):
            raise TrainingDiverged(self._divergence(last))
        self.passed_over, self.rewinds, self.skipped = next_batch - self.step, rewinds + 1, skipped
        self.streaks = {}
        self.context.reporter.note(f"{MAX_SKIPPED_STEPS} steps in a row were skipped: back to the checkpoint at step "
                                   f"{self.step}, and past the batches that led here")

    def _divergence(self, last: "_Step") -> str:
        return (f"the loss is not finite, or explodes, at step {last.number - 1} of {self.objective.steps} "
                f"({len(self.streaks[last.player])} in a row); what was good before is in the checkpoints of "
                f"{self.context.checkpoint_dir}, where there are any; lower the learning rate")

    def _restore(self, before: int | None = None) -> bool:
        state = self._read(self.context.checkpoint_dir, before)
        if state is None:
            return False
        self.step, self.passed_over, self.done = state["step"], state["passed_over"], state["done"]
        self.skipped, self.rewinds, self.streaks = state["skipped"], state["rewinds"], state["streaks"]
        self.curves = state["curves"]
        self.evaluated = state["evaluated"]
        return True

    def _read(self, directory: Path, before: int | None) -> dict[str, Any] | None:
        return checkpoints.restore(directory, self.model, self.optimizers, self.guard, self.context.reporter, before)

    def keep_the_beginning(self) -> None:
        """What a monitored training begins with is good, and so is what it goes on from elsewhere."""
        if self.good and not any(self.good.directory.glob("step-*")):
            self._save(self.good)

    def evaluate_if_due(self) -> None:
        """Take figures on held-out data where the objective wants them, in time that is not that of training."""
        if self.step not in self.objective.evaluation_steps and self.step != self.objective.steps:
            return
        self.read()
        if self.step <= self.evaluated:      # reading made it go back
            return
        before = time.monotonic()
        self.model.eval()
        figures = self.loss.call(self.objective.evaluate, self.step)
        self.model.train()
        self.evaluating += time.monotonic() - before
        self.evaluated = self.step
        self._record(self.step, figures)
        if figures:
            self.context.reporter.note(f"step {self.step}: " + ", ".join(f"{name} {value:.4g}"
                                                                         for name, value in figures.items()))
        if self.good:
            self._heed_monitors(self.good)

    def _heed_monitors(self, good: Saver) -> None:
        """Keep this state if it is good, else end at the last one that was."""
        verdict = self.objective.verdict(self.curves)
        if not self.ranks.on_any(verdict is not None)[0]:
            self._save(good)
            return
        verdict = verdict or Verdict("another_rank", math.nan, "a monitor of another rank has struck")
        good.wait()
        reached, state = self.step, self._read(good.directory, self.step)
        if state is None:
            raise TrainingDiverged(f"{verdict.reason}, and there is no good state from before step {reached} to end at")
        self.step, self.done, self.stopped = state["step"], state["done"], Stopped(verdict, reached, state["step"])
        self.context.reporter.note(f"stopped at step {reached} of {self.objective.steps}: {verdict.reason}; what is "
                                   f"kept is the last good state, that of step {self.step}")

    @property
    def begins_a_batch(self) -> bool:
        """Whether the next step takes a new batch, and a checkpoint holds all that is needed to go on."""
        return (self.step + self.passed_over) % self.objective.steps_of_a_batch == 0

    def save_if_due(self, interruption: Interruption) -> None:
        """Save a checkpoint when it is time to, and stop there when a signal came or the budget is spent."""
        over = self.step >= self.objective.steps
        spent = self.context.stop_at is not None and time.time() >= self.context.stop_at and not over
        due, stopped, spent = self.ranks.on_any(self.ranks.leads and self.saver.due and not over,
                                               interruption.requested is not None, spent)
        if not (due or stopped or spent) or not self.begins_a_batch:
            return
        self.read()
        # not among steps that are skipped, so that there is one from before them to go back to
        if self.streaks and not (stopped or spent):
            return
        self._save(self.saver)
        if not (stopped or spent):
            return
        where = f"saved a checkpoint at step {self.step} of {self.objective.steps}"
        self.saver.wait()
        self.ranks.on_any(True)      # no rank ends before the checkpoint is on the disk
        if stopped:
            self.context.reporter.note(f"{interruption.name}: {where}; the same run continues from it")
            interruption.deliver()
        raise BudgetSpent(where)

    def save_before_failure(self) -> None:
        """Save a checkpoint of the steps that were made, where a new batch begins or none does any more, and no other
        rank has to take part; elsewhere it is the last one that was due that is left."""
        whole = self.begins_a_batch or self.step >= self.objective.steps
        if self.step and whole and self.ranks.count == 1:
            self.read()
            self._save(self.saver)
            self.saver.wait()
            self.context.reporter.note(f"saved a checkpoint at step {self.step} of {self.objective.steps}")

    def _save(self, saver: Saver) -> None:
        if self.ranks.leads or saver.in_parts:
            saver.save(self.step, {"passed_over": self.passed_over, "done": self.done, "skipped": self.skipped,
                                   "rewinds": self.rewinds, "evaluated": self.evaluated,
                                   "streaks": {player: list(steps) for player, steps in self.streaks.items()},
                                   "curves": {name: list(points) for name, points in self.curves.items()}},
                       self.guard.state())

    def finished(self) -> Trained:
        """What the training comes to."""
        steps, unit = self.objective.steps, self.objective.unit
        seconds = time.monotonic() - self.began
        if not finite(self.curves["loss"]):
            raise TrainingDiverged(f"each of the {steps} steps was skipped: their loss or gradient was not finite; "
                                   "lower the learning rate")
        if self.skipped:
            self.context.reporter.note(f"{self.skipped} steps were skipped: their loss or gradient was not finite, or "
                                       "exploded")
        stopped = self.stopped
        metrics = {"loss": self._last_loss(), "steps": self.step, unit: self.done, "skipped_steps": self.skipped,
                   "rewinds": self.rewinds, "flops": self._flops()}
        if stopped:
            metrics |= {"stopped_at_step": stopped.step, f"stopped_by_{stopped.verdict.monitor}": stopped.verdict.value,
                        "flops": self._flops() * stopped.step / steps}
        return Trained(
            curves=self.curves, metrics=metrics, stopped=stopped,
            measurements={"training_seconds": seconds, "evaluation_seconds": self.evaluating,
                          "saving_seconds": self.saver.waited, "resumed_from_step": self.first_step,
                          f"{unit}_per_second": (self.done - self.done_before) / max(seconds - self.evaluating, 1e-9),
                          "device": str(self.device), "compiled": self.compiled, "precision": str(self.precision)[6:]})

    def _flops(self) -> float:
        if not has_adapters(self.model):
            return self.objective.flops
        share = share_of_training(trained_parameters(self.model), number_of_weights(self.model))
        return self.objective.flops * share

    def _last_loss(self) -> float:
        """That of the last step whose result is kept."""
        losses = finite(self.curves["loss"])
        return next((loss for step, loss in reversed(losses) if step <= self.step), losses[0][1])

    def _record(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value if math.isfinite(value) else None))
        self.context.reporter.metrics(step, **{name: value for name, value in values.items() if math.isfinite(value)})


@dataclass(frozen=True)
class _Step:
    """A step that was made and not yet looked at."""

    number: int
    """How many steps were made with it."""
    player: str
    values: dict[str, Tensor]
    """Scalars on the device."""
    batch: Batch
    factor: float
    """Share of the peak learning rate."""


def _replay(curves: Curves, reporter: Reporter) -> None:
    """Tell the reporter the points from before the interruption, so that its curves are whole."""
    by_step: dict[int, dict[str, float]] = {}
    for name, points in curves.items():
        for step, value in finite(points):
            by_step.setdefault(step, {})[name] = value
    for step, values in sorted(by_step.items()):
        reporter.metrics(step, **values)
