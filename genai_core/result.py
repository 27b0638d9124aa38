"""What a stage returns."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Result(NamedTuple):
    """Figures of a stage, beside the files that it wrote."""

    metrics: Mapping[str, float]
    """The same whenever the same inputs are given: they are part of the artifact."""
    measurements: Mapping[str, Any] = MappingProxyType({})
    """Seconds, speeds and hardware of this one execution."""
