"""Gates: whether the figures of a release meet what the preset asks for."""

import difflib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genai_core.config.release import IN_SERVICE, PARENT, Gate, Pair, PromoteConfig
from genai_core.context import Reporter, Result, read_metrics
from genai_core.errors import InputError
from genai_core.evaluation.release.columns import parent_of
from genai_core.evaluation.release.pairs import Figures, differences


@dataclass(frozen=True)
class GateVerdict:
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
          reporter: Reporter, absent: Collection[str] = ()) -> Result:
    """Write `gates.json` with the verdict of each gate on `figures`, and of each comparison of two columns of `tables`.

    What is asked of models and stages that the run does not have (`absent`) is left out, and said so. Raises InputError
    for a gate on a figure that does not exist and for a model that is in no table.
    """
    verdicts = check_gates(config, figures, absent) + check_pairs(config, tables, outcomes, reporter, absent)
    for name, gate in config.gates.items():
        if missing := _absent(gate, absent):
            reporter.note(f"{name}: left out, since this run has no {missing}")
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


def check_gates(config: PromoteConfig, figures: dict[str, float], absent: Collection[str] = ()) -> list[GateVerdict]:
    """The verdict of each gate on figures by name, of those that are on nothing absent. Raises InputError for a gate on
    a figure that does not exist."""
    return [_check(name, gate, figures) for name, gate in config.gates.items() if not _absent(gate, absent)]


def _absent(gate: Gate, absent: Collection[str]) -> str:
    """The model or stage that a gate is on and that there is not."""
    named = [figure.partition("/")[0] for figure in (gate.figure, gate.reference) if figure]
    return next((name for name in named if name in absent), "")


def check_pairs(config: PromoteConfig, tables: dict[str, Figures], outcomes: dict[str, Any], reporter: Reporter,
                absent: Collection[str] = ()) -> list[GateVerdict]:
    """The verdict of each comparison of each pair of models. Raises InputError for a model that is not in the table."""
    resolved: dict[str, Pair] = {}
    for name, pair in config.pairs.items():
        against = parent_of(pair.model, tables) if pair.against == PARENT else pair.against
        if missing := next((column for column in (pair.model, against) if column in absent), ""):
            reporter.note(f"{name}: left out, since this run has no {missing}")
        elif against in IN_SERVICE and against not in tables:
            reporter.note(f"{name}: no release is in service yet, so there is none to be held against")
        else:
            resolved[name] = pair.model_copy(update={"against": against})
    return [verdict for name, pair in resolved.items() for verdict in _compare(name, pair, config, tables, outcomes)]


def _compare(name: str, pair: Pair, config: PromoteConfig, tables: dict[str, Figures], outcomes: dict[str, Any]
             ) -> Iterator[GateVerdict]:
    for found in differences(name, pair, config.margins.model_dump(), tables, outcomes):
        yield GateVerdict(f"{name}/{found.figure}", f"{found.figure} of {pair.model} minus {pair.against}",
                          found.decisive, "<=" if found.lower_is_better else ">=", found.bound, found.passed,
                          found.value, found.low, found.high, found.questions)


def _check(name: str, gate: Gate, figures: dict[str, float]) -> GateVerdict:
    value = _figure(name, gate.figure, figures)
    bound = gate.bound
    if gate.reference is not None:
        reference = _figure(name, gate.reference, figures)
        bound = reference * gate.bound if gate.relative else reference + gate.bound
    passed = value <= bound if gate.comparison == "<=" else value >= bound      # NaN passes neither
    return GateVerdict(name, gate.figure, value, gate.comparison, bound, passed)


def _figure(gate: str, name: str, figures: dict[str, float]) -> float:
    if name not in figures:
        close = difflib.get_close_matches(name, figures, n=3, cutoff=0.3)
        raise InputError(f"promote.gates.{gate}: there is no figure {name!r}; near it are {', '.join(close)}")
    return figures[name]
