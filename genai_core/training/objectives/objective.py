"""What a training stage optimises: the one thing that the training loop does not know."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

Batch = dict[str, Tensor]


class Objective(ABC):
    """A loss, the batches that it is of, and figures on held-out data.

    Each step belongs to one player: the part of the model whose parameters it changes. Most objectives have one player,
    the whole model; two networks that play against each other are two.
    """

    steps: int
    unit: str
    """What `size` counts, for example tokens."""
    flops: float
    """Floating-point operations of all steps."""
    fixed_shapes: bool
    """Whether all batches have the same shapes: only then is compiling worth it, since each shape is compiled anew."""
    evaluation_steps: frozenset[int] = frozenset()

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """The tensors of one step; the first dimension of each is that of the examples."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the batch's targets, and further sums worth a curve. This is what gets compiled."""

    @abstractmethod
    def targets(self, batch: Batch) -> float:
        """What the sums are divided by: the number of target tokens, pairs or the like in the whole batch."""

    @abstractmethod
    def size(self, batch: Batch) -> int:
        """How many `unit` the batch is."""

    def figures(self, batch: Batch) -> dict[str, float]:
        """Points for curves that are known before the step, for example the mean reward of sampled text."""
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Figures on held-out data, after `step` steps; the loop calls it at `evaluation_steps` and after the last."""
        return {}

    def players(self, model: nn.Module) -> dict[str, nn.Module]:
        """The parts of the model that have an optimizer of their own."""
        return {"model": model}

    def player(self, step: int) -> str:
        """Whose step it is."""
        return "model"

    def after_step(self) -> None:      # noqa: B027  most objectives have nothing to do
        """Called after each optimizer step, for what follows the weights, such as their moving average."""


def evenly_spaced(steps: int, count: int) -> frozenset[int]:
    """The steps after which `count` evaluations are due, the last one at the end."""
    return frozenset(steps * (number + 1) // count for number in range(count))
