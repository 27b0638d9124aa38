"""The stage promote: whether a release's figures meet the gates of the preset."""

import difflib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from genai_core.config.release import Gate, PromoteConfig
from genai_core.context import Context, Result, read_metrics
from genai_core.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """One gate: the figure, the bound it was held against, and whether it passed."""

    gate: str
    figure: str
    value: float
    comparison: str
    bound: float
    passed: bool

    def __str__(self) -> str:
        state = "passed" if self.passed else "FAILED"
        return f"{state}: {self.gate}: {self.figure} is {self.value:.4f}, wanted {self.comparison} {self.bound:.4f}"


def run(config: PromoteConfig, *, evaluate: Path, out_dir: Path, context: Context, **others: Path) -> Result:
    """Write `gates.json` with the verdict of each gate. Raises InputError for a gate on a figure that does not exist.

    The figures are those of the artifact `evaluate` by their names, and those of `others` as `stage/figure`.
    """
    figures = read_metrics(evaluate)
    for stage, artifact in others.items():
        figures |= {f"{stage}/{name}": value for name, value in read_metrics(artifact).items()}
    verdicts = check_gates(config, figures)
    for verdict in verdicts:
        context.reporter.note(str(verdict))
    text = json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n"
    (out_dir / "gates.json").write_text(text, encoding="utf-8")
    return Result({"gates": len(verdicts), "failed_gates": sum(not verdict.passed for verdict in verdicts)})


def check_gates(config: PromoteConfig, figures: dict[str, float]) -> list[Verdict]:
    """The verdict of each gate on figures by name. Raises InputError for a gate on a figure that does not exist."""
    return [_check(name, gate, figures) for name, gate in config.gates.items()]


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
