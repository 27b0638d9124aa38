"""What cleaning does to one shard: repair it, judge its rows, and write what is left.

Each step is mapped over all shards; between them lie the joins (joins.py), whose answers for a shard are read from
sorted runs. A row is known by its address, the number of its shard times 2^32 plus its row, and comes in the order of
its rank: the address, behind all held-out rows for a training row, so that of two equal rows the held-out or else the
earlier one stays.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

from genai_core.config.data import CleanConfig
from genai_core.data.clean.card import SourceCard, describe
from genai_core.data.clean.decontaminate import held_out_runs, known_runs, run_of_words, shared_runs
from genai_core.data.clean.deduplicate import band_keys, band_rows, shingle_sets, signatures, write_shingles
from genai_core.data.clean.language import language_of
from genai_core.data.clean.normalize import normalize
from genai_core.data.clean.privacy import mask_personal_data
from genai_core.data.clean.quality import reason_to_remove
from genai_core.data.clean.runs import read_range, write_run
from genai_core.data.clean.words import hash_words
from genai_core.data.shards.files import shard_path, source_of, write_shard
from genai_core.data.shards.splits import fingerprint
from genai_core.data.shards.tables import SCHEMAS, Rows, edit_texts, family_of, subject_of, texts_of

SPEAK_OF_MARKUP = ("chats", "preferences", "problems")
"""Tables in which a tag is more likely what is talked about than what a web page left behind."""
TRAIN = 1 << 63
NOT_RATED = 1 << 62
"""Part of a rank: all but the held-out rated texts, which documents are compared with and which come before all."""
ADDRESS = NOT_RATED - 1


@dataclass(frozen=True)
class Shard:
    """One shard of the collected tables."""

    number: int
    table: str
    path: Path


@dataclass(frozen=True)
class Cleaning:
    """What every step is told."""

    config: CleanConfig
    scratch: Path
    """Folder for what steps hand to each other."""
    out_dir: Path

    def file(self, kind: str, shard: int) -> Path:
        return self.scratch / kind / f"{shard:06d}"

    def files(self, kind: str) -> list[Path]:
        """What all shards left of a kind."""
        folder = self.scratch / kind
        return sorted(folder.iterdir()) if folder.is_dir() else []


@dataclass
class Repaired:
    """Figures of a repaired shard."""

    rows: int
    masked: int


@dataclass
class Finished:
    """Figures of a finished shard. Names of removals are `SPLIT/TABLE/REASON`."""

    table: str
    kept: int = 0
    train_characters: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    sample: Rows = field(default_factory=list)
    offers: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    card: SourceCard = field(default_factory=lambda: SourceCard("", ""))


def repair_shard(shard: Shard, cleaning: Cleaning) -> Repaired:
    """Repair and mask the texts of a shard, and write what joins need of it: the keys by which equal rows meet, and the
    runs of words of held-out rows."""
    config = cleaning.config
    masked = 0

    def repair(text: str) -> str:
        nonlocal masked
        text = normalize(text, markup=shard.table in SPEAK_OF_MARKUP)
        if config.mask_personal_data:
            text, count = mask_personal_data(text)
            masked += count
        return text

    table = pq.read_table(shard.path, schema=SCHEMAS[shard.table])
    train = [split == "train" for split in table["split"].to_pylist()]
    if shard.table == "documents":
        subjects = [repair(text) for text in table["text"].to_pylist()]
        at = table.schema.get_field_index("text")
        table = table.set_column(at, table.schema.field(at), pa.array(subjects, pa.string()))
        keys = [_key("documents", text) for text in subjects]
    else:
        rows = table.to_pylist()
        for row in rows:
            edit_texts(row, repair)
        table = pa.Table.from_pylist(rows, schema=SCHEMAS[shard.table])
        subjects = [subject_of(row) for row in rows]
        keys = [_key(shard.table, json.dumps(texts_of(row))) for row in rows]
    path = cleaning.file("repaired", shard.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(table, str(path), compression="lz4")
    ranks = _ranks(shard.number, train)
    if shard.table == "ratings":
        rated = [(_key("documents", row["text"]), address)
                 for address, (row, trains) in enumerate(zip(rows, train, strict=True)) if not trains and row["text"]]
        keys += [key for key, _ in rated]
        ranks = np.concatenate([ranks, (np.array([at for _, at in rated], np.uint64)
                                        | np.uint64(shard.number << 32))])
    write_run(cleaning.file("keys", shard.number), np.array(keys, np.uint64), ranks)
    held_out = [subject for subject, trains in zip(subjects, train, strict=True) if not trains]
    write_run(cleaning.file("held-out", shard.number), held_out_runs(held_out, config.decontamination_ngram,
                                                                        templates=shard.table != "documents"))
    return Repaired(len(table), masked)


def judge_shard(shard: Shard, cleaning: Cleaning) -> int:
    """Write the reason to remove each row of a shard, if any, and of documents without one what makes near duplicates
    meet; the number of rows that have none.

    Rules go from cheap to expensive. Quality and contamination are for training text alone.
    """
    config = cleaning.config
    table = feather.read_table(str(cleaning.file("repaired", shard.number)), memory_map=False)
    splits = table["split"].to_pylist()
    documents = shard.table == "documents"
    subjects = table["text"].to_pylist() if documents else [subject_of(row) for row in table.to_pylist()]
    reasons, originals = _equal_rows(shard, cleaning, subjects, splits)
    details: list[str | None] = [None] * len(subjects)
    languages: list[str | None] = [None] * len(subjects)
    for row, text in enumerate(subjects):
        if documents and reasons[row] is None:
            languages[row] = language = language_of(text)
            if splits[row] == "train":
                reasons[row] = reason_to_remove(text, config, language)
    left = [row for row, reason in enumerate(reasons) if reason is None]
    words = hash_words([subjects[row] for row in left])
    shared = shared_runs(words, known_runs(cleaning.scratch / "held-out-runs"), config.decontamination_ngram)
    for place, (first, length) in shared.items():
        row = left[place]
        if splits[row] == "train":
            reasons[row] = "shared_with_held_out"
            details[row] = run_of_words(subjects[row], first, length)
    columns = {"reason": pa.array(reasons, pa.string()), "original": pa.array(originals, pa.uint64()),
               "detail": pa.array(details, pa.string()), "language": pa.array(languages, pa.string())}
    path = cleaning.file("judged", shard.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pa.table(columns), str(path), compression="lz4")
    if documents and config.near_duplicate_threshold < 1:
        shingles, bounds = shingle_sets(words)
        kept = np.array([reasons[row] is None for row in left], bool)
        ranks = _ranks(shard.number, [split == "train" for split in splits])[left][kept]
        keys = band_keys(signatures(shingles, bounds, config.minhash_permutations),
                         band_rows(config.near_duplicate_threshold, config.minhash_permutations))
        for band, of_band in enumerate(keys):
            write_run(cleaning.file(f"bands/{band:03d}", shard.number), of_band[kept], ranks)
        of_row = np.zeros(len(subjects) + 1, np.int64)      # the bounds of all rows; those that went have no shingles
        of_row[np.array(left, np.int64) + 1] = np.diff(bounds)
        write_shingles(cleaning.scratch / "shingles", shard.number, shingles, of_row.cumsum())
    return reasons.count(None)


def finish_shard(shard: Shard, cleaning: Cleaning) -> Finished:
    """Write the rows of a shard that have no reason to go."""
    table = feather.read_table(str(cleaning.file("repaired", shard.number)), memory_map=False)
    judged = feather.read_table(str(cleaning.file("judged", shard.number)), memory_map=False)
    reasons, originals, details = (judged[name].to_pylist() for name in ("reason", "original", "detail"))
    repeats, first = read_range(cleaning.files("near"), shard.number << 32, (shard.number + 1) << 32)
    for address, original in zip(repeats.tolist(), first.tolist(), strict=True):
        row = address & 0xFFFFFFFF
        reasons[row], originals[row] = "near_duplicate", original
    kept = pa.array([reason is None for reason in reasons], pa.bool_())
    done = Finished(shard.table)
    for row, split in enumerate(table["split"].to_pylist()):
        if reason := reasons[row]:
            _note_removal(done, table, row, split, reason, details[row] or "", originals[row], cleaning.config)
    whole = table.filter(kept)
    done.kept = len(whole)
    splits, sources = whole["split"].to_pylist(), whole["source"].to_pylist()
    labels = whole["label"].to_pylist() if shard.table == "documents" else [None] * len(whole)
    done.offers = _offers(shard.table, splits, sources, labels)
    if shard.table == "documents":
        done.languages.update(judged["language"].filter(kept).to_pylist())
        done.train_characters = sum(len(text) for text, split in zip(whole["text"].to_pylist(), splits, strict=True)
                                    if split == "train")
    languages = judged["language"].filter(kept).to_pylist()
    done.card = describe(source_of(shard.path), shard.table, whole, languages, done.removed)
    if len(whole):
        number = int(shard.path.stem.rpartition("-")[2])
        write_shard(whole, shard_path(cleaning.out_dir, shard.table, source_of(shard.path), number))
    return done


def _key(space: str, text: str) -> int:
    """Of 64 bits: that two of a thousand million different texts have the same has a probability of 3 %."""
    digest = hashlib.blake2b(fingerprint(text).encode("utf-8", "surrogatepass"), digest_size=8, person=space.encode())
    return int.from_bytes(digest.digest(), "little")


def _ranks(shard: int, train: Iterable[bool]) -> np.ndarray:
    flags = np.array([TRAIN | NOT_RATED if trains else NOT_RATED for trains in train], np.uint64)
    return flags | (np.uint64(shard << 32) + np.arange(len(flags), dtype=np.uint64))


def _equal_rows(shard: Shard, cleaning: Cleaning, subjects: list[str], splits: list[str]
                ) -> tuple[list[str | None], list[int | None]]:
    """For each row `empty`, `exact_duplicate` or `same_as_held_out_rating`, where that is so, and its original."""
    reasons: list[str | None] = [None] * len(subjects)
    originals: list[int | None] = [None] * len(subjects)
    repeats, first = read_range(cleaning.files("equal"), shard.number << 32, (shard.number + 1) << 32)
    for address, original in zip(repeats.tolist(), first.tolist(), strict=True):
        row = address & 0xFFFFFFFF
        reasons[row] = "exact_duplicate" if original & NOT_RATED else "same_as_held_out_rating"
        originals[row] = original
    if shard.table != "documents":
        for row, subject in enumerate(subjects):
            if not subject.strip():
                reasons[row], originals[row] = "empty", None
    return reasons, originals


def _note_removal(done: Finished, table: pa.Table, row: int, split: str, reason: str, detail: str,
                  original: int | None, config: CleanConfig) -> None:
    name = f"{split}/{done.table}/{reason}"
    done.removed[name] += 1
    if done.removed[name] <= config.removed_sample:
        record = table.slice(row, 1).to_pylist()[0]
        done.sample.append({"split": split, "table": done.table, "id": record["id"], "reason": reason,
                            "detail": detail, "text": subject_of(record)[:500], "original": original})


def _offers(table: str, splits: list[str], sources: list[str], labels: list[Any]) -> Counter[str]:
    """How many records of each source later stages will find, by split: so that a lack is known before training."""
    offers: Counter[str] = Counter()
    for split, source, label in zip(splits, sources, labels, strict=True):
        for name in {family_of(source), source}:
            offers[f"{split}/{table}/{name}"] += 1
            if label is not None:
                offers[f"{split}/labelled/{name}"] += 1
    return offers
