"""The stage clean: every removed document has a reason, every kept one is repaired, masked and decontaminated."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai_core.config.data import CleanConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.clean.decontaminate import HeldOut
from genai_core.data.clean.deduplicate import near_duplicates
from genai_core.data.clean.normalize import detokenize_wikitext, normalize
from genai_core.data.clean.privacy import mask_personal_data
from genai_core.data.clean.quality import reason_to_remove
from genai_core.data.splits import fingerprint
from genai_core.data.tables import TEXT_COLUMNS, Rows, read_table, write_table
from genai_core.errors import InputError

PAIRED = ("chats", "ratings", "translations", "titles")
"""Tables whose rows are a text and what belongs to it."""


class Removals:
    """Counts of removed records by split, table and reason, and a sample of them for people."""

    def __init__(self, sample_size: int):
        self.counts: Counter[str] = Counter()
        self.sample: list[dict[str, Any]] = []
        self._sample_size = sample_size

    def add(self, table: str, row: dict[str, Any], reason: str, detail: str = "") -> None:
        name = f"{row['split']}/{table}/{reason}"
        self.counts[name] += 1
        if self.counts[name] <= self._sample_size:
            text = _searchable(row)
            self.sample.append({"split": row["split"], "table": table, "id": row["id"], "reason": reason,
                                "detail": detail, "text": text[:500]})

    @property
    def held_out(self) -> int:
        return sum(count for name, count in self.counts.items() if not name.startswith("train/"))

    def __str__(self) -> str:
        """Counts by reason, those of held-out records apart: every figure depends on what is held out."""
        counts = [f"{name} {count:,}" for name, count in sorted(self.counts.items())]
        training = [text.removeprefix("train/") for text in counts if text.startswith("train/")]
        held_out = [text for text in counts if not text.startswith("train/")]
        return (f"of training records {', '.join(training) or 'none'}; "
                f"of held-out records {self.held_out:,}: {', '.join(held_out) or 'none'}")


def run(config: CleanConfig, *, collected: Path, out_dir: Path, context: Context) -> Result:
    """Clean all tables of `collected` into `out_dir`, with `removed.json` (counts) and `removed_sample.jsonl`.

    Held-out text is normalised like the rest and not judged by the rules of quality, so that figures are of the text as
    it was published. What repeats other held-out text does go, so that no text counts twice in a figure; `removed.json`
    tells how much, by split. Raises InputError when no training document is left.
    """
    reporter = context.reporter
    removals = Removals(config.removed_sample)
    tables = {name: read_table(collected, name) for name in ("documents", *PAIRED)}
    masked = sum(_normalize_row(row, config) for row in _with_progress(tables, reporter))
    held_out = HeldOut((_searchable(row) for row in _held_out_rows(tables)), config.decontamination_ngram)
    reporter.note("text normalised; looking for low quality, duplicates and held-out text")
    cleaned = {
        "documents": _clean_documents(tables["documents"], tables["ratings"], held_out, config, removals),
        **{name: _clean_pairs(tables[name], name, held_out, removals) for name in PAIRED},
    }
    if not any(row["split"] == "train" for row in cleaned["documents"]):
        reasons = ", ".join(f"{name} {count:,}" for name, count in removals.counts.most_common(3)) or "no documents"
        raise InputError(f"no training document is left after cleaning ({reasons}); add sources or loosen clean.*")
    for name, rows in cleaned.items():
        write_table(rows, name, out_dir)
    _write_removals(removals, out_dir)
    kept = {f"{name}_kept": len(rows) for name, rows in cleaned.items()}
    removed = {f"{name}_removed": len(tables[name]) - len(rows) for name, rows in cleaned.items()}
    characters = sum(len(row["text"]) for row in cleaned["documents"] if row["split"] == "train")
    reporter.note(f"removed: {removals}")
    return Result(kept | removed | _offers(cleaned)
                  | {"held_out_removed": removals.held_out, "masked": masked, "train_characters": characters})


def _offers(cleaned: dict[str, Rows]) -> dict[str, int]:
    """How many records later stages will find for what they do, by split: so that a lack is known before training."""
    counts: Counter[str] = Counter()
    for row in cleaned["documents"]:
        counts[f"{row['split']}/documents"] += 1
        counts[f"{row['split']}/sentiment"] += row["label"] is not None
    for row in cleaned["chats"]:
        counts[f"{row['split']}/{'trivia' if row['accepted'] else 'dialogue'}"] += 1
    for table, task in (("translations", "translation"), ("titles", "title")):
        for row in cleaned[table]:
            counts[f"{row['split']}/{task}"] += 1
    for row in cleaned["ratings"]:
        counts[f"{row['split']}/ratings/{row['source']}"] += 1
    return dict(sorted(counts.items()))


def _with_progress(tables: dict[str, Rows], reporter: Reporter) -> Iterator[dict[str, Any]]:
    total = sum(map(len, tables.values()))
    done = 0
    for rows in tables.values():
        for row in rows:
            if done % 2000 == 0:
                reporter.progress(done, total, "records")
            yield row
            done += 1
    reporter.progress(total, total, "records")


def _normalize_row(row: dict[str, Any], config: CleanConfig) -> int:
    """Repair the texts of a row in place; the number of masked pieces of personal data."""
    masked = 0

    def repair(text: str) -> str:
        nonlocal masked
        if row["source"].startswith("wikitext"):
            text = detokenize_wikitext(text)
        text = normalize(text)
        if config.mask_personal_data:
            text, count = mask_personal_data(text)
            masked += count
        return text

    for column in TEXT_COLUMNS:
        if column in row:
            row[column] = repair(row[column])
    for message in row.get("messages") or ():
        message["content"] = repair(message["content"])
    return masked


def _searchable(row: dict[str, Any]) -> str:
    """The text by which a row is compared with others: a chat is its question, a translation its source."""
    if "messages" in row:
        return row["messages"][0]["content"]
    return row["text"] if "text" in row else row["source_text"]


def _held_out_rows(tables: dict[str, Rows]) -> Iterator[dict[str, Any]]:
    for rows in tables.values():
        yield from (row for row in rows if row["split"] != "train")


def _clean_documents(documents: Rows, ratings: Rows, held_out: HeldOut, config: CleanConfig,
                     removals: Removals) -> Rows:
    """Rules from cheap to expensive; of two duplicates the held-out one stays, or else the earlier one.

    The rules of quality and contamination are for training text. Held-out documents go when they repeat another one, or
    a held-out rated text.
    """
    # Many rated texts are documents too. Equal texts fall on the same side of the split; should a source bring splits
    # of its own, a document that equals a held-out rated text still goes, so that a reward model is never judged on
    # text that its base was trained on.
    seen: dict[str, str] = {fingerprint(row["text"]): row["id"] for row in ratings if row["split"] != "train"}
    rated = set(seen.values())
    kept = []
    for row in sorted(documents, key=lambda row: row["split"] == "train"):
        key = fingerprint(row["text"])
        first = seen.setdefault(key, row["id"])
        if first in rated:
            removals.add("documents", row, "same_as_held_out_rating", first)
        elif first != row["id"]:
            removals.add("documents", row, "exact_duplicate", first)
        elif row["split"] == "train" and (reason := reason_to_remove(row["text"], config)):
            removals.add("documents", row, reason)
        elif row["split"] == "train" and (shared := held_out.match(row["text"])):
            removals.add("documents", row, "shared_with_held_out", shared)
        else:
            kept.append(row)
    if config.near_duplicate_threshold < 1:
        originals = near_duplicates((row["text"] for row in kept), config.near_duplicate_threshold,
                                    config.minhash_permutations)
        unique = []
        for row, original in zip(kept, originals, strict=True):
            if original is None:
                unique.append(row)
            else:
                removals.add("documents", row, "near_duplicate", kept[original]["id"])
        kept = unique
    return sorted(kept, key=lambda row: row["id"])


def _clean_pairs(rows: Rows, table: str, held_out: HeldOut, removals: Removals) -> Rows:
    """Of a text and what belongs to it: empty rows, exact repeats, and training rows that quote held-out text go."""
    seen = set()
    kept = []
    for row in sorted(rows, key=lambda row: row["split"] == "train"):
        whole = json.dumps([row.get(column) for column in ("messages", *TEXT_COLUMNS)])
        if not _searchable(row).strip():
            removals.add(table, row, "empty")
        elif (key := fingerprint(whole)) in seen:
            removals.add(table, row, "exact_duplicate")
        elif row["split"] == "train" and (shared := held_out.match(_searchable(row))):
            removals.add(table, row, "shared_with_held_out", shared)
        else:
            seen.add(key)
            kept.append(row)
    return sorted(kept, key=lambda row: row["id"])


def _write_removals(removals: Removals, out_dir: Path) -> None:
    counts = json.dumps(dict(sorted(removals.counts.items())), indent=1) + "\n"
    (out_dir / "removed.json").write_text(counts, encoding="utf-8")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in removals.sample)
    (out_dir / "removed_sample.jsonl").write_text("".join(lines), encoding="utf-8")
