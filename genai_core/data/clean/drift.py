"""How far cleaned data has moved from other cleaned data, by their cards (card.py)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from genai_core.config.data import DriftGate

Entries = Sequence[dict[str, Any]]
"""What `cleaned_card.json` holds: one entry for each source and table."""
_NAMED = 3
"""Parts of a distribution that a person is told of, those that moved most."""


def drift(gate: DriftGate, before: Entries, now: Entries) -> tuple[float, str]:
    """How far what a gate is on has moved, and what moved, in words.

    Of an amount, |now / before − 1|; of a distribution the total variation distance ½ Σ |p − q|: the share of the
    records that would have to change for the two to be the same. A kind of data that was not there before, or is no
    more, has moved by 1.
    """
    if gate.of in ("rows", "characters"):
        amounts = [sum(_amount(gate.of, entry) for entry in _entries(gate, entries)) for entries in (before, now)]
        return _change(*amounts), f"{amounts[0]:,} → {amounts[1]:,}"
    counts = [_counts(gate, entries) for entries in (before, now)]
    totals = [sum(count.values()) for count in counts]
    if not all(totals):
        return float(any(totals)), f"{totals[0]:,} → {totals[1]:,} counted"
    shares = {part: tuple(count[part] / total for count, total in zip(counts, totals, strict=True))
              for part in sorted(counts[0] | counts[1])}
    moved = sorted(shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))[:_NAMED]
    told = ", ".join(f"{part} {old:.1%} → {new:.1%}" for part, (old, new) in moved)
    return sum(abs(new - old) for old, new in shares.values()) / 2, told


def _entries(gate: DriftGate, entries: Entries) -> list[dict[str, Any]]:
    return [entry for entry in entries
            if entry["table"] == gate.table and (not gate.source or entry["source"] == gate.source)]


def _amount(of: str, entry: dict[str, Any]) -> int:
    return int(entry["characters"] if of == "characters" else sum(entry["splits"].values()))


def _change(before: int, now: int) -> float:
    return abs(now / before - 1) if before else float(bool(now))


def _counts(gate: DriftGate, entries: Entries) -> Counter[str]:
    counts: Counter[str] = Counter()
    for entry in _entries(gate, entries):
        counts.update({entry["source"]: _amount("rows", entry)} if gate.of == "sources" else entry[gate.of])
    if gate.of == "lengths":
        return Counter({f"under {2 ** int(power):,} characters": count for power, count in counts.items()})
    return counts
