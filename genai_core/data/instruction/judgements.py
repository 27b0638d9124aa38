"""What people judged: texts and conversations with a rating, pairs of answers of which one was preferred, and texts
with a label that is better than the others."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genai_core.config.release import Gold
from genai_core.data.chat import Chat
from genai_core.data.shards.splits import fingerprint
from genai_core.data.shards.tables import is_of, iterate_table, subject_of

Subject = str | Chat
"""What is judged: a text, or a conversation up to the answer that the judgement is of."""


@dataclass(frozen=True)
class Judged:
    """Something that people judged."""

    subject: Subject
    rating: float
    """Higher is better. Of a preference, the chosen one has 1 and the rejected one 0."""
    group: str
    """Two are compared only within a group: a source of ratings or labels, or the two answers of a preference."""
    source: str
    is_choice: bool = False
    """Whether the rating is 1 or 0 by a preference or a label, which tell better from worse whatever the scale."""

    def least_gap(self, min_rating_gap: float) -> float:
        """Difference of ratings from which on another one of the group is better or worse."""
        return 1.0 if self.is_choice else min_rating_gap


@dataclass(frozen=True)
class Judgements:
    """The judgements of a split."""

    rated: list[Judged]
    preferred: list[Judged]
    """The chosen and the rejected answer of each preference, one after the other."""

    @property
    def all(self) -> list[Judged]:
        return self.rated + self.preferred

    def in_pairs(self, seed: int) -> list[Judged]:
        """All of them such that the first two belong together, the next two, and so on: what was rated in random order,
        and of an odd number one left out."""
        order = np.random.default_rng(seed).permutation(len(self.rated))
        return [self.rated[index] for index in order[:len(order) // 2 * 2]] + self.preferred

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.source for each in self.all))

    def of(self, source: str) -> list[Judged]:
        return [each for each in self.all if each.source == source]

    def pairs_of(self, source: str, min_rating_gap: float) -> int:
        """Number of pairs of a source of which one is better by enough."""
        by_group: dict[str, list[Judged]] = {}
        for each in self.of(source):
            by_group.setdefault(each.group, []).append(each)
        count = 0
        for members in by_group.values():
            ratings = np.sort([each.rating for each in members])
            count += int(np.searchsorted(ratings, ratings - members[0].least_gap(min_rating_gap), "right").sum())
        return count


def judgements(cleaned: Path, split: str, sources: tuple[str, ...] = (), gold: Gold | None = None, *,
               kept: bool = False) -> Judgements:
    """The judgements of a split from some sources, or from all.

    Where `gold` names a label that counts as good, labelled texts of sources that are named count as judged too: those
    with that label have 1, the others 0. Of the training split a share is kept for the gold reward, by a hash of what
    was asked: with `kept` these alone are returned, without it the others. Where a task of labelled texts teaches the
    gold reward, the share is one of labelled texts alone; without `gold` there is none.
    """
    def wanted(row: dict, share: float) -> bool:
        is_kept = split == "train" and position(subject_of(row)) < share
        return is_of(row, sources) and (is_kept == kept or split != "train")

    share = gold.fraction if gold and not gold.task else 0.0
    rated = []
    both = set()      # whose preferences are a source of their own in every split: 0 and 1 are no ratings
    for row in iterate_table(cleaned, "ratings"):
        both.add(row["source"])
        if row["split"] == split and wanted(row, share):
            rated.append(Judged(row["text"] or row["messages"], row["rating"], row["source"], row["source"]))
    preferred = [Judged([*row["prompt"], *row[side]], rating, row["id"],
                        f"{row['source']}/preferences" if row["source"] in both else row["source"], is_choice=True)
                 for row in iterate_table(cleaned, "preferences", split=split) if wanted(row, share)
                 for side, rating in (("chosen", 1.0), ("rejected", 0.0))]
    if gold and gold.label and sources:
        rated += [Judged(row["text"], float(row["label"] == gold.label), row["source"], row["source"], is_choice=True)
                  for row in iterate_table(cleaned, "documents", split=split)
                  if row["label"] is not None and wanted(row, gold.fraction)]
    return Judgements(rated, preferred)


def position(text: str) -> float:
    """A number in [0, 1) that depends on the letters and digits of a text alone, and not on its split."""
    digest = hashlib.sha256(b"gold\0" + fingerprint(text).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def text_of(subject: Subject) -> str:
    """The text, or what the assistant says in a conversation."""
    if isinstance(subject, str):
        return subject
    return "\n".join(message["content"] for message in subject if message["role"] == "assistant")
