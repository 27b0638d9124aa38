"""The stage clean: every removed document has a reason, every kept one is repaired, masked and decontaminated.

Three passes over the shards, with joins between them: repair; judge; write. Only figures and a sample of the removed
come back from a shard, so that memory does not grow with the data, and no byte depends on how many processes did it.
"""

import json
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow import feather

from genai_core.config.data import CleanConfig
from genai_core.context import Context, Result
from genai_core.data.clean.card import SourceCard, write_card
from genai_core.data.clean.joins import join_equal_rows, join_held_out_runs, join_near_duplicates
from genai_core.data.clean.steps import ADDRESS, Cleaning, Finished, Shard, finish_shard, judge_shard, repair_shard
from genai_core.data.shards.files import NO_SOURCE, shards_of, source_of
from genai_core.data.shards.tables import Rows, complete_tables
from genai_core.errors import InputError

TABLES = ("documents", "chats", "preferences", "ratings", "problems", "pairs")
LANGUAGES = 10
"""Number of languages whose documents are counted in the metrics, the most frequent ones."""


def run(config: CleanConfig, *, collected: Path, out_dir: Path, context: Context) -> Result:
    """Clean all tables of `collected` into `out_dir`, with `removed.json` (counts) and `removed_sample.jsonl`.

    Held-out text is normalised like the rest and not judged by the rules of quality, so that figures are of the text as
    it was published. What repeats other held-out text does go, so that no text counts twice in a figure; `removed.json`
    tells how much, by split. Raises InputError when documents were collected and no training document is left.
    """
    reporter = context.reporter
    paths = [(table, path) for table in TABLES for path in shards_of(collected, table)
             if source_of(path) != NO_SOURCE]
    shards = [Shard(number, table, path) for number, (table, path) in enumerate(paths)]
    rows: Counter[str] = Counter()
    totals = Totals(config.removed_sample)
    masked = done = 0
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=out_dir) as scratch:
        cleaning = Cleaning(config, Path(scratch), out_dir)
        for shard, repaired in zip(shards, context.map(partial(repair_shard, cleaning=cleaning), shards), strict=True):
            rows[shard.table] += repaired.rows
            masked += repaired.masked
            done += 1
            reporter.progress(done, 3 * len(shards), "shards")
        reporter.note("text normalised; looking for low quality, duplicates and held-out text")
        join_equal_rows(cleaning, context.map)
        join_held_out_runs(cleaning, context.map)
        for _ in context.map(partial(judge_shard, cleaning=cleaning), shards):
            done += 1
            reporter.progress(done, 3 * len(shards), "shards")
        join_near_duplicates(cleaning, context.map)
        for finished in context.map(partial(finish_shard, cleaning=cleaning), shards):
            totals.add(finished)
            done += 1
            reporter.progress(done, 3 * len(shards), "shards")
        sample = [_with_original(record, cleaning) for record in totals.sample]
    if rows["documents"] and not totals.train_characters:
        reasons = ", ".join(f"{name} {count:,}" for name, count in totals.removed.most_common(3))
        raise InputError(f"no training document is left after cleaning ({reasons}); add sources or loosen clean.*")
    complete_tables(out_dir, TABLES)
    _write_removals(totals.removed, sample, out_dir)
    write_card(totals.cards, out_dir)
    held_out = sum(count for name, count in totals.removed.items() if not name.startswith("train/"))
    reporter.note(f"removed: {_told(totals.removed, held_out)}")
    return Result({f"{table}_kept": totals.kept[table] for table in TABLES}
                  | {f"{table}_removed": rows[table] - totals.kept[table] for table in TABLES}
                  | dict(sorted(totals.offers.items()))
                  | {f"language/{name}": count for name, count in totals.languages.most_common(LANGUAGES)}
                  | {"held_out_removed": held_out, "masked": masked, "train_characters": totals.train_characters})


class Totals:
    """Sums and cards over the finished shards, and the first removed records of each reason for people to read."""

    def __init__(self, sample_size: int):
        self.kept: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()
        self.offers: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.cards: dict[tuple[str, str], SourceCard] = {}
        self.train_characters = 0
        self.sample: Rows = []
        self._sample_size = sample_size
        self._sampled: Counter[str] = Counter()

    def add(self, finished: Finished) -> None:
        self.kept[finished.table] += finished.kept
        self.removed.update(finished.removed)
        self.offers.update(finished.offers)
        self.languages.update(finished.languages)
        self.train_characters += finished.train_characters
        card = finished.card
        self.cards.setdefault((card.source, card.table), SourceCard(card.source, card.table)).add(card)
        for record in finished.sample:
            name = f"{record['split']}/{record['table']}/{record['reason']}"
            if self._sampled[name] < self._sample_size:
                self._sampled[name] += 1
                self.sample.append(record)


def _told(removed: Counter[str], held_out: int) -> str:
    """Counts by reason, those of held-out records apart: every figure depends on what is held out."""
    counts = [f"{name} {count:,}" for name, count in sorted(removed.items())]
    training = [text.removeprefix("train/") for text in counts if text.startswith("train/")]
    others = [text for text in counts if not text.startswith("train/")]
    return (f"of training records {', '.join(training) or 'none'}; "
            f"of held-out records {held_out:,}: {', '.join(others) or 'none'}")


def _with_original(record: dict[str, Any], cleaning: Cleaning) -> dict[str, Any]:
    """A removed record that tells the id of what it repeats, in place of its rank."""
    rank = record.pop("original")
    if rank is None:
        return record
    address = rank & ADDRESS
    repaired = feather.read_table(str(cleaning.file("repaired", address >> 32)), columns=["id"])
    return record | {"detail": repaired["id"][address & 0xFFFFFFFF].as_py()}


def _write_removals(removed: Counter[str], sample: Rows, out_dir: Path) -> None:
    counts = json.dumps(dict(sorted(removed.items())), indent=1) + "\n"
    (out_dir / "removed.json").write_text(counts, encoding="utf-8")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in sample)
    (out_dir / "removed_sample.jsonl").write_text("".join(lines), encoding="utf-8")
