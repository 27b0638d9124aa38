"""Rows that cannot be used: by the source's declared policy they end the run, or are set aside and counted."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genai_core.config.data import RowSource
from genai_core.errors import InputError

MAX_WRITTEN = 1_000
"""Rows of set_aside.jsonl; the others are counted only."""
_MAX_SHOWN = 2_000

SetAside = Callable[[str, str, str, Any], None]
"""Told of each row that is set aside: the name of its source, its place, the reason, and the row as it was read."""


class BadRow(InputError):
    """Why a row cannot be used and what to do, without its place."""


class Policy:
    """What becomes of the bad rows of one source.

    Raises InputError at the first where `on_bad_row` is `stop`; at the end, if more rows are bad than good, in any
    case: then it is the source that is not what it was taken for.
    """

    def __init__(self, source: RowSource, name: str, set_aside: SetAside | None = None):
        self.name = name
        self.stops = source.on_bad_row == "stop"
        self.set_aside = set_aside
        self.good = 0
        self.reasons: Counter[str] = Counter()

    def refuse(self, place: str, reason: str, row: Any = None) -> None:
        if self.stops:
            raise InputError(f"collect.sources.{self.name}: {place}: {reason} (on_bad_row: skip would set such rows "
                             "aside)")
        self.reasons[reason] += 1
        if self.set_aside:
            self.set_aside(self.name, place, reason, row)

    def check(self, origin: str) -> None:
        """At the end of the source, which `origin` names."""
        bad = self.reasons.total()
        if bad > self.good:
            reason, count = self.reasons.most_common(1)[0]
            raise InputError(f"collect.sources.{self.name}: {bad:,} of {bad + self.good:,} rows cannot be used, "
                             f"{count:,} of them because of: {reason}")
        if not self.good:
            raise InputError(f"collect.sources.{self.name}: there is no row in {origin}; remove the source or set "
                             "enabled: false")


class SetAsideFile:
    """Writes what is set aside to a file, made when there is something to write, and counts the reasons."""

    def __init__(self, path: Path):
        self.path = path
        self.reasons: dict[str, Counter[str]] = {}

    def __call__(self, source: str, place: str, reason: str, row: Any) -> None:
        counts = self.reasons.setdefault(source, Counter())
        counts[reason] += 1
        if sum(counter.total() for counter in self.reasons.values()) > MAX_WRITTEN:
            return
        try:
            shown = json.dumps(row, default=str)[:_MAX_SHOWN]
        except (RecursionError, ValueError, TypeError):
            shown = ""
        line = json.dumps({"source": source, "place": place, "reason": reason, "row": shown})
        with self.path.open("a", encoding="utf-8") as out:
            out.write(line + "\n")

    def summary(self, source: str) -> str | None:
        """One line on the rows of a source that were set aside; None if there were none."""
        counts = self.reasons.get(source)
        if not counts:
            return None
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in counts.most_common(5))
        more = f"; {len(counts) - 5} other reasons" if len(counts) > 5 else ""
        return f"{source}: {counts.total():,} rows set aside ({reasons}{more})"
