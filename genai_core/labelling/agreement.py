"""What labels say: how often each model's answer was the better one, and how much labellers agree."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from genai_core.evaluation.intervals import share_interval
from genai_core.labelling.labels import Label

VERDICTS = ("the first", "the second", "tie", "both bad")
"""Verdicts on two answers in an order that does not depend on how they were shown."""


@dataclass(frozen=True)
class Wins:
    """How the answers of two models did against each other."""

    first: str
    second: str
    labels: int
    first_better: int
    second_better: int
    ties: int
    both_bad: int
    win_rate: float
    """Share of the labels in which the second's answer was better, no better one counting half."""
    low: float
    high: float
    """Ends of the 95 % interval of the win rate, from resampling prompts; Wilson's where all of them say the same."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """How much two people said the same of the same answers."""

    first: str
    second: str
    labels: int
    agreement: float
    """Share of the answers of which both said the same."""
    kappa: float | None
    """Cohen's kappa (1960): agreement beyond what chance gives, 1 for all of it; None where it is not defined, both
    having said one and the same of everything."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def wins(labels: Iterable[Label]) -> list[Wins]:
    """For every two models. Two samples of one model tell nothing of it and are left out."""
    by_models: dict[tuple[str, str], dict[str, list[str]]] = {}
    for label in labels:
        models = sorted((label.first.model, label.second.model))
        if models[0] != models[1]:
            by_models.setdefault((models[0], models[1]), {}).setdefault(label.question[0], []).append(_verdict(label))
    found = []
    for (first, second), by_prompt in sorted(by_models.items()):
        count = Counter(each for verdicts in by_prompt.values() for each in verdicts)
        values = [sum(map(_score, verdicts)) for verdicts in by_prompt.values()]      # of one prompt, by all labellers
        weights = [float(len(verdicts)) for verdicts in by_prompt.values()]
        rate = sum(values) / sum(weights)
        low, high = share_interval([values, weights], rate)
        found.append(Wins(first, second, count.total(), first_better=count[VERDICTS[0]],
                          second_better=count[VERDICTS[1]], ties=count["tie"], both_bad=count["both bad"],
                          win_rate=rate, low=low, high=high))
    return found


def agreement(labels: Iterable[Label]) -> list[Agreement]:
    """For every two labellers who judged the same answers."""
    from sklearn.metrics import cohen_kappa_score

    by_labeller: dict[str, dict[Any, str]] = {}
    for label in labels:
        answers = sorted((answer.model, answer.text) for answer in (label.first, label.second))
        by_labeller.setdefault(label.labeller, {})[label.question[0], *answers] = _verdict(label)
    found = []
    for first, second in combinations(sorted(by_labeller), 2):
        common = [key for key in by_labeller[first] if key in by_labeller[second]]
        if not common:
            continue
        verdicts = [[by_labeller[name][key] for key in common] for name in (first, second)]
        same = sum(one == other for one, other in zip(*verdicts, strict=True)) / len(common)
        defined = len({*verdicts[0], *verdicts[1]}) > 1
        kappa = float(cohen_kappa_score(*verdicts, labels=VERDICTS)) if defined else None
        found.append(Agreement(first, second, len(common), same, kappa))
    return found


def _verdict(label: Label) -> str:
    """The verdict on the two answers in the order of their models, of one model in that of their texts."""
    if label.verdict in ("tie", "both_bad"):
        return "tie" if label.verdict == "tie" else "both bad"
    first = min((label.first, label.second), key=lambda answer: (answer.model, answer.text))
    return VERDICTS[0] if label.chosen == first else VERDICTS[1]


def _score(verdict: str) -> float:
    return {VERDICTS[0]: 0.0, VERDICTS[1]: 1.0}.get(verdict, 0.5)
