"""Which documents of a source are held out, and in which pieces, where it has no split of its own.

Documents go whole to the split that the hash of their text says. A source with too few of them for that, one book, say,
is cut into pieces that go where the hash of theirs says. Of a small source of chats, or of other records that questions
are made of, a larger share is held out, since a figure needs questions.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genai_core.data.shards.pieces import SHORTEST_PIECE, cut, piece_length
from genai_core.data.shards.splits import position_of, split_at
from genai_core.data.shards.tables import subject_of

FEWEST_DOCUMENTS = 50
FEWEST_HELD_OUT = 3
"""A source with fewer documents, or with fewer in a split that is held out, is cut into pieces."""

SMALL_SOURCE = 5_000
"""Records of questions below which a source is small."""
WANTED_QUESTIONS = {"test": 200, "validation": 100}
"""Questions to hold out of a small source, as far as LARGEST_SHARE of it goes."""
LARGEST_SHARE = 0.15
_BYTES = "bytes, in hexadecimal"

Record = tuple[str, dict[str, Any]]


@dataclass
class HoldingOut:
    """How a source is held out: whole documents, or pieces of `length` characters."""

    name: str
    validation_fraction: float
    test_fraction: float
    length: int | None = None
    """Characters of a piece; None for whole documents."""
    moved: dict[float, str] = field(default_factory=dict)
    """Splits of the pieces, by the position of their text, that fill a split which no piece would be in."""
    too_little: str = ""
    """Why there is not a piece for each split; empty where there is."""

    def split(self, text: str) -> str:
        position = position_of(text)
        return self.moved.get(position) or split_at(position, self.validation_fraction, self.test_fraction)

    def hold_out_questions(self, records: int) -> None:
        """Take a larger share of a source of so many records, where a share is held out at all."""
        shares = {split: min(LARGEST_SHARE, wanted / max(records, 1)) for split, wanted in WANTED_QUESTIONS.items()}
        if self.test_fraction > 0:
            self.test_fraction = max(self.test_fraction, shares["test"])
        if self.validation_fraction > 0:
            self.validation_fraction = max(self.validation_fraction, shares["validation"])

    def pieces(self, text: str) -> list[str]:
        return cut(text, self.length) if self.length else [text]

    @property
    def wanted(self) -> list[str]:
        """The splits that something is to be held out for."""
        fractions = (("test", self.test_fraction), ("validation", self.validation_fraction))
        return [split for split, fraction in fractions if fraction > 0]


def plan_holding_out(records: Iterator[Record], spool: "Spool", name: str, validation_fraction: float,
                     test_fraction: float) -> HoldingOut:
    """Read as many records into `spool` as it takes to see whether whole documents can be held out: all, if not.
    """
    plan = HoldingOut(name, validation_fraction, test_fraction)
    counts = dict.fromkeys(("train", *plan.wanted), 0)
    documents = characters = 0
    questions = 0
    for record in records:
        spool.add(record)
        questions += _asks(record)
        if (text := _undivided(record)) is None:
            if questions >= SMALL_SOURCE and not documents:
                return plan
            continue
        documents += 1
        characters += len(text)
        counts[plan.split(text)] += 1
        enough = documents >= FEWEST_DOCUMENTS and all(counts[split] >= FEWEST_HELD_OUT for split in plan.wanted)
        if enough and (questions < documents or questions >= SMALL_SOURCE):
            return plan
    if questions == spool.records:
        plan.hold_out_questions(questions)
        return plan
    if not documents or not plan.wanted:
        return plan
    plan.length = piece_length(characters)
    texts = filter(None, map(_undivided, spool))
    positions = {position_of(piece) for text in texts for piece in plan.pieces(text) if piece.strip()}
    if len(positions) <= len(plan.wanted):
        plan.length = None
        plan.too_little = (f"collect.sources.{name}: {characters:,} characters in {documents:,} documents are too "
                           f"little to train on and to hold out of; {(len(plan.wanted) + 1) * SHORTEST_PIECE * 3 // 2} "
                           "are needed, or set collect.validation_fraction and collect.test_fraction to 0")
        return plan
    _fill_empty_splits(plan, sorted(positions))
    return plan


def _fill_empty_splits(plan: HoldingOut, positions: list[float]) -> None:
    """Move the piece of the least position that another split can spare to each split without one."""
    of = {position: split_at(position, plan.validation_fraction, plan.test_fraction) for position in positions}
    for split in (*plan.wanted, "train"):
        if split not in of.values():
            spare = next(position for position in positions
                         if sum(other == of[position] for other in of.values()) > 1)
            of[spare] = plan.moved[spare] = split


def _asks(record: Record) -> bool:
    """Whether a record is one that questions are made of, and not text alone."""
    table, row = record
    return table not in ("documents", "images") or row.get("label") is not None


def _undivided(record: Record) -> str | None:
    """Text of a document that brings no split of its own."""
    table, row = record
    return subject_of(row) if table == "documents" and not row.get("split") else None


class Spool:
    """Records that were read and will be read once more, on the disk: sources are read once, whatever they are."""

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)      # noqa: SIM115  closed when the spool is let go
        self.records = 0

    def add(self, record: Record) -> None:
        line = json.dumps(record, default=lambda data: {_BYTES: data.hex()})
        self._file.write(line.encode("ascii") + b"\n")
        self.records += 1

    def __iter__(self) -> Iterator[Record]:
        self._file.seek(0)
        for line in self._file:
            table, row = json.loads(line, object_hook=_read_bytes)
            yield table, row


def _read_bytes(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value[_BYTES]) if _BYTES in value else value


def evenly(records: Iterator[Record], limit: int | None, folder: Path) -> Iterator[Record]:
    """At most `limit` of the records, at even distances over all of them."""
    if limit is None:
        yield from records
        return
    spool = Spool(folder)
    for record in records:
        spool.add(record)
    taken = min(limit, spool.records)
    chosen = (index * spool.records // taken for index in range(taken))
    wanted = next(chosen, None)
    for number, record in enumerate(spool):
        if number == wanted:
            yield record
            wanted = next(chosen, None)
