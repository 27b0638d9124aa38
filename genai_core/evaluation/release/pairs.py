"""Whether one model is not worse than another, beyond noise, on the questions that both were asked."""

from collections.abc import Iterator
from dataclasses import dataclass

from genai_core.config.release import Pair
from genai_core.errors import InputError
from genai_core.evaluation.intervals import Outcomes, difference_interval

Figures = dict[str, float]


@dataclass(frozen=True)
class Difference:
    """The figure of one model minus that of another, the ends of its interval, and the margin that it must keep."""

    figure: str
    value: float
    low: float
    high: float
    questions: int
    lower_is_better: bool
    bound: float
    """What `low` must be at least, or `high` at most where lower is better."""

    @property
    def decisive(self) -> float:
        """The end of the interval that decides."""
        return self.high if self.lower_is_better else self.low

    @property
    def passed(self) -> bool:
        return self.high <= self.bound if self.lower_is_better else self.low >= self.bound


def differences(name: str, pair: Pair, margins: dict[str, float], figures: dict[str, Figures],
                outcomes: dict[str, dict[str, Outcomes]]) -> list[Difference]:
    """The differences that a pair asks for, each with a 95 % interval corrected for the number of tasks (Bonferroni).

    Raises InputError for a model that is not in the table, for a figure that one of the two lacks, and when nothing can
    be compared.
    """
    for column in (pair.model, pair.against):
        if column not in figures:
            raise InputError(f"promote.pairs.{name}: there is no model {column!r}; there are {', '.join(figures)}")
    a, b = outcomes.get(pair.against, {}), outcomes.get(pair.model, {})
    either = {**a, **b}
    tasks = {figure: margin if ending == "bits_per_byte" else -margin for figure in either
             for ending, margin in margins.items()
             if pair.tasks and figure.endswith(f"_{ending}") and not figure.startswith("bits_per_byte")}
    wanted = tasks | dict(_other_bounds(pair, either))
    if not wanted:
        raise InputError(f"promote.pairs.{name}: {pair.model} and {pair.against} have no figure in common that it "
                         "compares")
    for column, known in ((pair.model, b), (pair.against, a)):
        if missing := [figure for figure in wanted if figure not in known]:
            raise InputError(f"promote.pairs.{name}: {column} has no figure {missing[0]}, which is to be compared")
    confidence = 1 - 0.05 / max(1, len(tasks))
    found = []
    for figure, bound in wanted.items():
        first, second = _in_common(a[figure], b[figure])
        lower_is_better = "bits_per_byte" in figure
        if lower_is_better:
            value = sum(second[0]) / sum(second[1]) - sum(first[0]) / sum(first[1])
        else:
            value = figures[pair.model][figure] - figures[pair.against][figure]
        low, high = difference_interval(first, second, paired=True, centre=value, confidence=confidence)
        found.append(Difference(figure, value, low, high, len(first[0]), lower_is_better, bound))
    return found


def _other_bounds(pair: Pair, outcomes: dict[str, Outcomes]) -> Iterator[tuple[str, float]]:
    """The figures other than tasks that a pair compares, and the bound of each difference."""
    if pair.bits_per_byte is not None:
        files = [figure for figure in outcomes if figure.startswith("bits_per_byte/")]
        of_test = [figure for figure in files if figure.startswith("bits_per_byte/test.")]
        yield from ((figure, pair.bits_per_byte) for figure in of_test or files or ["bits_per_byte"])
    if pair.gold_reward is not None:
        yield from (("gold_reward", pair.gold_reward), ("gold_reward_greedy", min(pair.gold_reward, 0.0)))


def _in_common(first: Outcomes, second: Outcomes) -> tuple[Outcomes, Outcomes]:
    """The stretches of text that both models read: one with another tokenizer read a little more or less of it."""
    count = min(len(first[0]), len(second[0]))
    return [part[:count] for part in first], [part[:count] for part in second]
