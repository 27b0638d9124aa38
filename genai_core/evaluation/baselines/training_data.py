"""What baselines learn from, bounded: all the training data, or of more than fits into memory an even choice.

Byte n-grams sort their whole training text, TF-IDF holds every record. Data below the bounds is taken whole.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pyarrow.compute as pc

from genai_core.config.tasks import Lesson
from genai_core.context import Reporter
from genai_core.data.instruction.examples import Example, iterate_examples
from genai_core.data.shards.files import iterate_batches, shards_of
from genai_core.data.shards.splits import is_drawn
from genai_core.data.shards.tables import SCHEMAS

MOST_BYTES = 100_000_000
"""Bytes of text that n-grams are counted of: some 1.3 GB of memory."""
MOST_EXAMPLES = 100_000
"""Number of records of a task that its baselines learn from."""
SEPARATOR = b"\n\n"
"""Between two documents, in place of a model's end-of-text token."""

T = TypeVar("T")


def training_text(cleaned: Path, most: int = MOST_BYTES) -> tuple[bytes, int]:
    """The training documents, joined, and the bytes that all of them have.

    Of more than `most` bytes every document is taken or left by the hash of its id, so that each source keeps its
    share, and the last one is cut where `most` is reached.
    """
    shards = shards_of(cleaned, "documents")
    total = 0
    for batch in iterate_batches(shards, SCHEMAS["documents"]):
        texts = batch.filter(pc.equal(batch["split"], "train"))["text"]
        total += (pc.sum(pc.binary_length(texts)).as_py() or 0) + len(SEPARATOR) * len(texts)
    total = max(0, total - len(SEPARATOR))      # between documents, not after the last
    share = min(1.0, most / max(1, total))
    pieces: list[bytes] = []
    left = most
    for batch in iterate_batches(shards, SCHEMAS["documents"]):
        rows = batch.filter(pc.equal(batch["split"], "train"))
        for identifier, text in zip(rows["id"].to_pylist(), rows["text"].to_pylist(), strict=True):
            if left > 0 and is_drawn(identifier, share, b"baselines"):
                pieces.append(text.encode()[:left])
                left -= len(pieces[-1]) + len(SEPARATOR)
    return SEPARATOR.join(pieces), total


def training_examples(name: str, lesson: Lesson, cleaned: Path, reporter: Reporter, most: int = MOST_EXAMPLES
                      ) -> list[Example]:
    """The training examples of the task called `name`, at most `most` of them, and a note where there are more."""
    known, total = even_sample(iterate_examples(lesson, cleaned, "train"), most)
    if total > most:
        reporter.note(f"{name}: the baselines learn from {most:,} of {total:,} training records, an even choice")
    return known


def even_sample(items: Iterable[T], most: int) -> tuple[list[T], int]:
    """All items, or of more than `most` a random choice of so many that is always the same, in their order; and how
    many there are. They are drawn in one pass (algorithm R, Vitter 1985)."""
    generator = random.Random(0)
    kept: list[tuple[int, T]] = []
    count = 0
    for number, item in enumerate(items):
        count += 1
        if number < most:
            kept.append((number, item))
        elif (place := generator.randrange(count)) < most:
            kept[place] = number, item
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])], count
