"""How a stage tells the outside world what it is doing, without knowing who listens."""

import logging
from typing import Protocol

logger = logging.getLogger("genai_core")


class Reporter(Protocol):
    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        """`done` of `total` `unit` (for example tokens) are finished; `figures` are worth showing beside the bar."""

    def metrics(self, step: int, **values: float) -> None:
        """Points of curves: each value belongs to the curve of its name at `step`."""

    def note(self, text: str) -> None:
        """One line for the log that a person may want to read."""


class LogReporter:
    """Sends notes to the standard log and drops the rest: enough to run any stage with no service at all."""

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        pass

    def metrics(self, step: int, **values: float) -> None:
        pass

    def note(self, text: str) -> None:
        logger.info(text)
