"""What a training stage optimises, which is all that the training loop does not know."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from genai_core.training.alignment.monitors import Verdict
from genai_core.training.curves import Curves

Batch = dict[str, Tensor]


class Objective(ABC):
    """A loss, the batches that it is taken of, and figures on held-out data.

    Each step belongs to one player: the part of the model whose parameters it updates. Most objectives have one player,
    the whole model; two networks that are trained against each other are two.
    """

    steps: int
    """Number of optimizer steps."""
    unit: str
    """What `size` counts, e.g. `tokens`."""
    flops: float
    """Floating-point operations of all steps."""
    fixed_shapes: bool
    """Whether all batches have the same shapes; each shape is compiled anew, so only then is it worth compiling."""
    sampled: bool = False
    """Whether `batch` samples, so that each of several ranks makes its share of the examples alone; otherwise it makes
    all of them and takes its share."""
    steps_of_a_batch: int = 1
    """Number of steps that a sampled batch is used for, and counts once; a checkpoint comes where a new one begins, and
    training goes on there after going back, since what was sampled is in no checkpoint."""
    monitored: bool = False
    """Whether the figures of an evaluation can end training: then what was good is kept at each."""
    evaluation_steps: frozenset[int] = frozenset()
    """Steps after which `evaluate` is called; it is called after the last step in any case."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """Tensors of step `step`, by name; the first dimension of each is that of the examples."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the targets of the batch, and further such sums by name, each of which becomes a curve.

        This is what torch.compile compiles.
        """

    @abstractmethod
    def targets(self, batch: Batch) -> float | Tensor:
        """Number of targets in the whole batch, e.g. of tokens or pairs: what the sums of `loss` are divided by.

        A scalar tensor where it is counted on the device, which then nothing waits for.
        """

    @abstractmethod
    def size(self, batch: Batch) -> int:
        """Size of `batch` in `unit`, e.g. its number of tokens."""

    def figures(self, batch: Batch) -> dict[str, float]:
        """Figures of the batch itself, which become curves, e.g. the mean reward of sampled text."""
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Figures on held-out data after `step` steps."""
        return {}

    def verdict(self, curves: Curves) -> Verdict | None:
        """Why training is to end at its last good state, after an evaluation whose figures are in `curves`; None while
        all is well. Only where `monitored` is set."""
        return None

    def players(self, model: nn.Module) -> dict[str, nn.Module]:
        """Parts of the model by name, each of which has an optimizer of its own."""
        return {"model": model}

    def player(self, step: int) -> str:
        """Name of the player whose parameters are updated by the batch of this number."""
        return "model"

    def after_step(self, skipped: Tensor) -> None:      # noqa: B027  most objectives have nothing to do
        """Update what depends on the weights, e.g. their moving average; called after each optimizer step. `skipped`,
        a scalar on the device, is 1 where the step did not count."""


def evenly_spaced(steps: int, count: int) -> frozenset[int]:
    """Steps after which `count` evaluations are due, at even distances up to the end."""
    return frozenset(steps * (number + 1) // count for number in range(count))
