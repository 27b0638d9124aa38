"""Which steps count: one whose loss or gradient is not finite, or whose loss explodes, must not move the weights.

The verdict is a tensor on the training's device and goes to the optimizers as `found_inf`, the protocol of PyTorch's
gradient scaler: a step that does not count is taken, without effect, and no host waits for the verdict.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from genai_core.training.objectives.objective import Batch

WINDOW = 128
"""Losses that the mean and the deviation of a step's loss are taken of."""
LEAST_RISE = 0.5
"""Share of the mean by which a loss must exceed it to explode: where losses hardly vary, deviations are minute."""
KEPT_BATCHES = 8
"""Number of batches of skipped steps that are written to files."""


class Guard:
    """Judges each step by its loss, its gradient norm and the last losses of its player.

    A loss explodes when it is above the mean of the last WINDOW losses that counted by `deviations` of their standard
    deviations and by half that mean. `deviations` of 0 judges by finiteness alone.
    """

    def __init__(self, players: Iterable[str], deviations: float, device: torch.device):
        self.deviations = deviations
        self._losses = {name: torch.full((WINDOW,), torch.nan, device=device) for name in players}

    def skip(self, player: str, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """1.0 where the step is not to count, else 0.0: a scalar on the device. Of a loss that counts, keep a note."""
        known = self._losses[player]
        loss = loss.detach().float()
        bad = ~(torch.isfinite(loss) & torch.isfinite(gradient_norm))
        if self.deviations:
            mean = known.mean()      # NaN, and so no explosion, until the window is full
            rise = torch.maximum(self.deviations * known.std(), LEAST_RISE * mean.abs())
            bad = bad | (loss - mean > rise)
        self._losses[player] = torch.where(bad, known, torch.cat([known[1:], loss[None]]))
        return bad.float()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {f"guard/{name}": losses for name, losses in self._losses.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of a checkpoint."""
        for name, losses in self._losses.items():
            losses.copy_(state[f"guard/{name}"])


def keep_batch(directory: Path, step: int, batch: Batch) -> Path | None:
    """Write the batch of a skipped step to a file, to be looked at; None once KEPT_BATCHES are there."""
    path = directory / f"skipped-step-{step:08d}.safetensors"
    if len(list(directory.glob("skipped-step-*"))) >= KEPT_BATCHES:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in batch.items()}, scratch)
    return scratch.replace(path)
