"""How far cleaned data has moved from other cleaned data, by their cards (card.py)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from genai_core.config.data import DriftGate

Entries = Sequence[dict[str, Any]]
"""What `cleaned_card.json` holds: one entry for each source and table."""
_OTHER = "other labels"
"""Those that a card does not name, together."""
_NAMED = 3
"""Parts of a distribution that a person is told of, those that moved most."""


def drift(gate: DriftGate, before: Entries, now: Entries) -> tuple[float, str]:
    """How far what a gate is on has moved, and what moved, in words.

    Of an amount, |now / before − 1|; of a distribution the total variation distance ½ Σ |p − q|: the share of the
    records that would have to change for the two to be the same. A kind of data that was not there before, or is no
    more, has moved by 1. Of labels that a card does not name the distance is the least that it can be.
    """
    if gate.of in ("rows", "characters"):
        amounts = [sum(_amount(gate.of, entry) for entry in _entries(gate, entries)) for entries in (before, now)]
        return _change(*amounts), f"{amounts[0]:,} → {amounts[1]:,}"
    counts = [_counts(gate, entries) for entries in (before, now)]
    totals = [sum(count.values()) for count in counts]
    if not all(totals):
        return float(any(totals)), f"{totals[0]:,} → {totals[1]:,} counted"
    old, new = ({part: count / total for part, count in count.items()}
                for count, total in zip(counts, totals, strict=True))
    if gate.of == "labels":
        most = [_most_of_an_unnamed_label(gate, entries) / total
                for entries, total in zip((before, now), totals, strict=True)]
        old, new = _completed(old, new, most[0]), _completed(new, old, most[1])
    shares = {part: (old.get(part, 0.0), new.get(part, 0.0)) for part in sorted(old.keys() | new.keys())}
    moved = sorted(shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))[:_NAMED]
    told = ", ".join(f"{part} {first:.1%} → {second:.1%}" for part, (first, second) in moved)
    return sum(abs(second - first) for first, second in shares.values()) / 2, told


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
        if gate.of == "labels" and (others := entry.get("other_labels", 0)):
            counts[_OTHER] += others
    if gate.of == "lengths":
        return Counter({f"under {2 ** int(power):,} characters": count for power, count in counts.items()})
    return counts


def _most_of_an_unnamed_label(gate: DriftGate, entries: Entries) -> int:
    """Most records that a label may have which no card names: as many as the rarest one that is named."""
    return sum(min(entry["labels"].values()) for entry in _entries(gate, entries) if entry.get("other_labels", 0))


def _completed(shares: dict[str, float], others: dict[str, float], most: float) -> dict[str, float]:
    """The shares of labels with those that only the other card names, taken out of `other labels`: each as near to the
    other's share as `most` allows. Of two hundred labels that are equally frequent each card names another fifty."""
    rest = shares.get(_OTHER, 0.0)
    unnamed = {label: min(share, most) for label, share in others.items() if label not in shares and label != _OTHER}
    scale = min(1.0, rest / sum(unnamed.values())) if any(unnamed.values()) else 0.0
    taken = {label: share * scale for label, share in unnamed.items()}
    return {**shares, **taken, _OTHER: rest - sum(taken.values())}
