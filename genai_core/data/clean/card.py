"""The card of cleaned data: how much there is of each source, how long, in which languages, with which labels, what was
removed and why, and the first records to read."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from genai_core.data.shards.tables import texts_of

CARD = "cleaned_card.json"
SAMPLES = 3
SAMPLE_CHARACTERS = 300
LABELS = 50
"""Most labels of a source that are counted by name."""


@dataclass
class SourceCard:
    """What there is of one source in one table."""

    source: str
    table: str
    splits: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    """Records by the power of two that their length in characters is below."""
    languages: Counter[str] = field(default_factory=Counter)
    """Of documents, by ISO 639-1 code."""
    labels: Counter[str] = field(default_factory=Counter)
    """Of labelled documents for training."""
    removed: Counter[str] = field(default_factory=Counter)
    """Records that were removed, by reason."""
    samples: list[str] = field(default_factory=list)

    def add(self, other: "SourceCard") -> None:
        """Take in what another shard of the source has, in the order of the shards."""
        self.characters += other.characters
        for name in ("splits", "lengths", "languages", "labels", "removed"):
            getattr(self, name).update(getattr(other, name))
        self.samples += other.samples[:SAMPLES - len(self.samples)]


def describe(source: str, table: str, kept: pa.Table, languages: Iterable[str | None], removed: Counter[str]
             ) -> SourceCard:
    """The card of one shard. `languages` are those of the kept rows, `removed` has `SPLIT/TABLE/REASON`."""
    card = SourceCard(source, table)
    card.splits.update(kept["split"].to_pylist())
    card.languages.update(language for language in languages if language)
    for name, count in removed.items():
        card.removed[name.rsplit("/", 1)[-1]] += count
    if table == "documents":
        sizes = [len(text) for text in kept["text"].to_pylist()]
        labelled = zip(kept["label"].to_pylist(), kept["split"].to_pylist(), strict=True)
        card.labels.update(label for label, split in labelled if label is not None and split == "train")
    else:
        sizes = [sum(map(len, texts_of(row))) for row in kept.to_pylist()]
    card.characters = sum(sizes)
    card.lengths.update(size.bit_length() for size in sizes)
    card.samples = [_sample(row) for row in kept.slice(0, SAMPLES).to_pylist()]
    return card


def _sample(row: dict[str, Any]) -> str:
    text = " ⏎ ".join(" ".join(part.split()) for part in texts_of(row))
    return text if len(text) <= SAMPLE_CHARACTERS else f"{text[:SAMPLE_CHARACTERS]} …"


def write_card(cards: Mapping[tuple[str, str], SourceCard], out_dir: Path) -> None:
    """Write `cleaned_card.json`: one entry for each source and table that had a record."""
    entries = []
    for _, card in sorted(cards.items()):
        entry = dict(vars(card))
        entry["lengths"] = dict(sorted(card.lengths.items()))
        entry["labels"] = dict(card.labels.most_common(LABELS))
        entry["other_labels"] = card.labels.total() - sum(entry["labels"].values())
        for name in ("splits", "languages", "removed"):
            entry[name] = dict(sorted(entry[name].items()))
        entries.append(entry)
    text = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
    (out_dir / CARD).write_text(text, encoding="utf-8")
