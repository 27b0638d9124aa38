"""Looking for the best values of some fields: each trial is a run, and the next one goes by what the earlier ones gave.

By Optuna's tree-structured Parzen estimator (Bergstra et al. 2011). A search that is stopped and started again proposes
the same values, whose runs are in the cache, and goes on where it was.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genai_core.errors import InputError

LOGARITHMIC = 10.0
"""A range whose ends are so many times apart is looked at by magnitude."""


class Row(Protocol):
    """Runs one combination: the figures of the run, by `stage/figure`."""

    def __call__(self, combination: dict[str, Any], /) -> dict[str, Any]: ...


class Range(BaseModel):
    """Numbers from `low` to `high`; whole ones where both are written so: 4..8, but 0.0..1.0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float

    @model_validator(mode="after")
    def has_room(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"{self.low:g}..{self.high:g} has no room: low is to be less than high")
        return self

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


class Search(BaseModel):
    """What is varied, how often, and which figure is to be best."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: dict[str, list[Any] | Range] = Field(min_length=1)
    """For each `stage.field` the values to choose from, or a range, as `{"low": 1e-4, "high": 1e-2}`."""
    trials: int = Field(ge=1, le=10_000)
    minimize: str = ""
    """The figure that is to be small, e.g. `pretrain/bits_per_byte`."""
    maximize: str = ""
    """The figure that is to be large."""
    seed: int = 0

    @model_validator(mode="after")
    def one_figure(self) -> "Search":
        if bool(self.minimize) == bool(self.maximize):
            raise ValueError("name one figure to minimize or to maximize")
        return self

    @property
    def figure(self) -> str:
        return self.minimize or self.maximize


def search_rows(search: Search, run: Row, failed: str, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each trial, or one alone where the first run does not have the figure. Raises InputError without
    Optuna."""
    try:
        import optuna
    except ImportError:
        raise InputError("a search needs Optuna: .venv/bin/pip install -c constraints.txt -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if search.minimize else "maximize",
                                sampler=optuna.samplers.TPESampler(seed=search.seed))
    distributions = {name: _distribution(given) for name, given in search.fields.items()}
    rows = []
    for number in range(search.trials):
        trial = study.ask(distributions)
        row = run(dict(trial.params))
        rows.append(row)
        if failed in row:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if not math.isfinite(row.get(search.figure, math.nan)):
            figures = ", ".join(name for name in row if "/" in name)
            row[failed] = f"{search.figure}: the run has no such figure, or no number in it; there are {figures}"
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            if len(rows) == 1:      # misspelt, most likely: no more runs for it
                return rows
            continue
        study.tell(trial, row[search.figure])
        note(f"trial {number + 1} of {search.trials}: {search.figure} {row[search.figure]:.4g}, best "
             f"{study.best_value:.4g} with {study.best_params}")
    return rows


def _distribution(given: list[Any] | Range) -> Any:
    from optuna import distributions

    if isinstance(given, list):
        return distributions.CategoricalDistribution(given)
    by_magnitude = given.low > 0 and given.high / given.low >= LOGARITHMIC
    if given.whole:
        return distributions.IntDistribution(int(given.low), int(given.high), log=by_magnitude)
    return distributions.FloatDistribution(float(given.low), float(given.high), log=by_magnitude)
