"""What a stage returns."""

from typing import Any, NamedTuple


class Result(NamedTuple):
    """Figures of a stage, beside the files that it wrote."""

    metrics: dict[str, float]
    """The same whenever the same inputs are given: they are part of the artifact."""
    measurements: dict[str, Any] = {}
    """Seconds, speeds and hardware of this one execution."""
