"""Gates: whether the figures of a release meet what the preset asks for."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genai_core.config.release import Gate, PromoteConfig
from genai_core.context import Reporter, Result, read_metrics
from genai_core.errors import InputError
from genai_core.evaluation.pairs import Figures, differences

IN_SERVICE = ("champion", "champion_base")
"""Columns of the release in service, which a first release has none to be held against."""


@dataclass(frozen=True)
class Verdict:
    """One gate: the figure, the bound it was held against, and whether it passed."""

    gate: str
    figure: str
    value: float
    """The figure; of a comparison of two models, the end of the interval that decides."""
    comparison: str
    bound: float
    passed: bool
    difference: float | None = None
    """Of a comparison of two models: the difference itself, with its interval and the number of questions."""
    low: float | None = None
    high: float | None = None
    questions: int | None = None

    def __str__(self) -> str:
        state = "passed" if self.passed else "FAILED"
        if self.difference is None:
            return f"{state}: {self.gate}: {self.figure} is {self.value:.4f}, wanted {self.comparison} {self.bound:.4f}"
        return (f"{state}: {self.gate}: {self.figure}: {self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], "
                f"wanted {self.comparison} {self.bound:+.4f}")


def judge(config: PromoteConfig, figures: Figures, tables: dict[str, Figures], outcomes: dict[str, Any], out_dir: Path,
          reporter: Reporter) -> Result:
    """Write `gates.json` with the verdict of each gate on `figures`, and of each comparison of two columns of `tables`.

    Raises InputError for a gate on a figure that does not exist and for a model that is in no table.
    """
    verdicts = check_gates(config, figures) + check_pairs(config, tables, outcomes, reporter)
    for verdict in verdicts:
        reporter.note(str(verdict))
    text = json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n"
    (out_dir / "gates.json").write_text(text, encoding="utf-8")
    return Result({"gates": len(verdicts), "failed_gates": sum(not verdict.passed for verdict in verdicts)})


def figures_by_stage(evaluate: Path, stages: dict[str, Path]) -> Figures:
    """The figures of the evaluation by their names, and those of further artifacts as `stage/figure`."""
    figures = read_metrics(evaluate)
    for stage, artifact in stages.items():
        figures |= {f"{stage}/{name}": value for name, value in read_metrics(artifact).items()}
    return figures


def check_gates(config: PromoteConfig, figures: dict[str, float]) -> list[Verdict]:
    """The verdict of each gate on figures by name. Raises InputError for a gate on a figure that does not exist."""
    return [_check(name, gate, figures) for name, gate in config.gates.items()]


def check_pairs(config: PromoteConfig, tables: dict[str, Figures], outcomes: dict[str, Any], reporter: Reporter
                ) -> list[Verdict]:
    """The verdict of each comparison of each pair of models. Raises InputError for a model that is not in the table."""
    return [verdict for name in config.pairs for verdict in _compare(name, config, tables, outcomes, reporter)]


def _compare(name: str, config: PromoteConfig, tables: dict[str, Figures], outcomes: dict[str, Any], reporter: Reporter
             ) -> Iterator[Verdict]:
    pair = config.pairs[name]
    if pair.against in IN_SERVICE and pair.against not in tables:
        reporter.note(f"{name}: no release is in service yet, so there is none to be held against")
        return
    for found in differences(name, pair, config.margins.model_dump(), tables, outcomes):
        yield Verdict(f"{name}/{found.figure}", f"{found.figure} of {pair.model} minus {pair.against}", found.decisive,
                      "<=" if found.lower_is_better else ">=", found.bound, found.passed, found.value, found.low,
                      found.high, found.questions)


def _check(name: str, gate: Gate, figures: dict[str, float]) -> Verdict:
    value = _figure(name, gate.figure, figures)
    bound = gate.bound
    if gate.reference is not None:
        reference = _figure(name, gate.reference, figures)
        bound = reference * gate.bound if gate.relative else reference + gate.bound
    passed = value <= bound if gate.comparison == "<=" else value >= bound      # NaN passes neither
    return Verdict(name, gate.figure, value, gate.comparison, bound, passed)


def _figure(gate: str, name: str, figures: dict[str, float]) -> float:
    if name not in figures:
        close = difflib.get_close_matches(name, figures, n=3, cutoff=0.3)
        raise InputError(f"promote.gates.{gate}: there is no figure {name!r}; near it are {', '.join(close)}")
    return figures[name]
