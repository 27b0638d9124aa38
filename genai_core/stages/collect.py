"""The stage collect: the declared sources become one set of Parquet tables and a data card."""

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from genai_core.config.addresses import is_remote, shown
from genai_core.config.data import (
    AnySource,
    ArchiveSource,
    ArithmeticSource,
    CollectConfig,
    FileSource,
    HubSource,
    RandomTextSource,
    StandardLibrarySource,
)
from genai_core.context import Context, Result
from genai_core.data.shards.files import ShardWriter, shards_of
from genai_core.data.shards.holding_out import HoldingOut, Record, Spool, evenly, plan_holding_out
from genai_core.data.shards.tables import SCHEMAS, complete_tables, subject_of, texts_of
from genai_core.data.sources.archives import fetch
from genai_core.data.sources.arithmetic import draw_problems
from genai_core.data.sources.bad_rows import MAX_WRITTEN, SetAsideFile
from genai_core.data.sources.files import Note, file_digests_of, read_files
from genai_core.data.sources.hub import read_hub
from genai_core.data.sources.paths import find_local
from genai_core.data.sources.random_text import draw_text
from genai_core.data.sources.readers import READERS
from genai_core.data.sources.standard_library import VERSION, library_digest, read_standard_library
from genai_core.errors import InputError

IDENTITIES = "sources.json"


def run(config: CollectConfig, *, out_dir: Path, context: Context) -> Result:
    """Write the tables (see tables.py) and the data card to `out_dir`.

    Relative paths of file sources start at `context.root`. Raises InputError for a source that is missing, empty,
    unreadable, of the wrong schema or with another hash.
    """
    reporter = context.reporter
    enabled = [name for name, source in config.sources.items() if source.enabled]
    card: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter()
    too_little: list[str] = []
    held_out = 0
    whole: dict[str, Collected] = {}
    identities = {name: _identity(name, config, context.root.absolute()) for name in enabled}
    reporter.progress(0, len(enabled), "sources")
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=out_dir) as scratch:
        collect = partial(collect_source, config=config, root=context.root.absolute(), out_dir=out_dir,
                          scratch=Path(scratch))
        taken = _taken_over(identities, context, out_dir)
        for name, collected in _in_order(enabled, taken, context.map(collect, [name for name in enabled
                                                                               if name not in taken])):
            whole[name] = collected
            card[name] = collected.card
            counts.update(collected.tables)
            too_little += [collected.too_little] if collected.too_little else []
            held_out += collected.held_out
            for note in collected.notes:
                reporter.note(note)
            reporter.progress(len(card), len(enabled), "sources")
    if too_little and not held_out:
        raise InputError(too_little[0])
    complete_tables(out_dir, SCHEMAS)
    if taken:
        reporter.note(f"unchanged since they were collected before: {', '.join(taken)}")
    _write_identities(identities, whole, out_dir)
    _join_set_aside([_set_aside(out_dir, name) for name in enabled], out_dir / "set_aside.jsonl")
    (out_dir / "data_card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out_dir / "DATA_CARD.md").write_text(_card_text(card), encoding="utf-8")
    characters = sum(entry["characters"] for entry in card.values())
    return Result({"sources": len(card), "characters": characters} | {name: counts[name] for name in SCHEMAS})


@dataclass
class Collected:
    """What is told of a source that was collected."""

    card: dict[str, Any]
    """The data card's entry: what there is, whose it is, and a digest of every record."""
    tables: dict[str, int]
    """Number of rows of each table."""
    notes: list[str]
    too_little: str
    """Why no document of the source could be held out; empty where it could, or brings its own split."""
    held_out: int
    """Number of documents that are held out."""


def collect_source(name: str, config: CollectConfig, root: Path, out_dir: Path, scratch: Path) -> Collected:
    """Write the shards of one source, holding one of each table in memory. Called again after a worker died of it, it
    writes the same files again."""
    source = config.sources[name]
    notes: list[str] = []
    _set_aside(out_dir, name).unlink(missing_ok=True)
    aside = SetAsideFile(_set_aside(out_dir, name))
    writers = {table: ShardWriter(out_dir, table, name, schema) for table, schema in SCHEMAS.items()}
    digest = hashlib.sha256()
    characters = held_out = 0
    splits = {"train": 0, "validation": 0, "test": 0}
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        records = evenly(_records(source, name, root, notes.append, aside), source.limit, Path(own))
        spool = Spool(Path(own))
        plan = plan_holding_out(records, spool, name, config.validation_fraction, config.test_fraction)
        for table, row in _rows(chain(spool, records), plan, source.licence):
            size = len(row["text"]) if table == "documents" else sum(map(len, texts_of(row)))
            writers[table].add(row, size)
            line = json.dumps(row, sort_keys=True, ensure_ascii=False, default=bytes.hex)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
            characters += size
            splits[row["split"]] += 1
            held_out += table == "documents" and row["split"] != "train"
    for writer in writers.values():
        writer.close()
    rows = sum(writer.rows for writer in writers.values())
    if not rows:
        raise InputError(f"collect.sources.{name}: no record in the source; remove it or set enabled: false")
    card = {"licence": source.licence, "attribution": source.attribution, "kind": source.kind,
            "origin": _origin(source), "rows": rows, "characters": characters, "splits": splits,
            "sha256": digest.hexdigest()}
    if plan.length:
        notes.append(f"{name}: too few documents to hold any out whole; cut into pieces of some {plan.length:,} "
                     "characters")
    notes.append(f"{name}: {rows:,} records, {characters:,} characters, licence: {source.licence}")
    if summary := aside.summary(name):
        notes.append(summary)
    return Collected(card, {table: writer.rows for table, writer in writers.items()}, notes, plan.too_little, held_out)


def _taken_over(identities: dict[str, str], context: Context, out_dir: Path) -> dict[str, Collected]:
    """The sources that an earlier artifact has from the same bytes and settings, with their shards copied."""
    taken: dict[str, Collected] = {}
    for directory in context.earlier:
        known = json.loads((directory / IDENTITIES).read_text(encoding="utf-8"))
        for name, identity in identities.items():
            if name in known and name not in taken and known[name]["identity"] == identity:
                for table in SCHEMAS:
                    for shard in shards_of(directory, table, name):
                        (out_dir / table).mkdir(exist_ok=True)
                        shutil.copyfile(shard, out_dir / table / shard.name)
                taken[name] = Collected(**known[name]["collected"])
    return taken


def _in_order(names: list[str], taken: dict[str, Collected], others: Iterator[Collected]
              ) -> Iterator[tuple[str, Collected]]:
    for name in names:
        yield name, taken[name] if name in taken else next(others)


def _write_identities(identities: dict[str, str], whole: dict[str, Collected], out_dir: Path) -> None:
    """What each source's shards depend on, by which a later run knows whether they would be the same; of a source with
    rows that were set aside nothing, so that they are told again."""
    known = {name: {"identity": identities[name], "collected": asdict(collected)}
             for name, collected in whole.items() if not _set_aside(out_dir, name).is_file()}
    (out_dir / IDENTITIES).write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _identity(name: str, config: CollectConfig, root: Path) -> str:
    parts = [config.sources[name].for_key(), config.validation_fraction, config.test_fraction,
             _digests_of(name, config.sources[name], root)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _rows(records: Iterable[Record], plan: HoldingOut, licence: str) -> Iterator[Record]:
    """The rows of a source, each with its id and its split, and of one that has too few documents the pieces."""
    name = plan.name
    for number, (table, record) in enumerate(records):
        part, split = record.pop("part", None), record.pop("split", None)
        subject = record.pop("split_by", None) or subject_of(record)
        common = {"source": f"{name}/{part}" if part else name, "licence": licence}
        identifier = f"{name}/{number:07d}"
        if table != "documents" or split:
            yield table, {"id": identifier, **common, "split": split or plan.split(subject), **record}
            continue
        pieces = plan.pieces(record["text"])
        for place, piece in enumerate(pieces):
            if len(pieces) > 1:
                identifier, subject = f"{name}/{number:07d}.{place:05d}", piece
                if not piece.strip():
                    continue
            yield table, {"id": identifier, **common, "split": plan.split(subject), **record, "text": piece}


def file_digests(config: CollectConfig, root: Path) -> dict[str, str]:
    """SHA-256 of the files that sources read, here or behind an address: what tables depend on beside the config."""
    digests: dict[str, str] = {}
    for name, source in config.sources.items():
        digests |= _digests_of(name, source, root) if source.enabled else {}
    return digests


def file_bytes(config: CollectConfig, root: Path) -> int:
    """Size of all that is read where it is files of this machine alone, some of which may be compressed; 0 where a
    source is something else."""
    enabled = [(name, source) for name, source in config.sources.items() if source.enabled]
    if not all(isinstance(source, FileSource) and not any(map(is_remote, source.paths)) for _, source in enabled):
        return 0
    return sum(found.file.stat().st_size for name, source in enabled if isinstance(source, FileSource)
               for found in find_local(source, name, root))


def _digests_of(name: str, source: AnySource, root: Path) -> dict[str, str]:
    if isinstance(source, StandardLibrarySource):
        return {f"{name}/{VERSION}": library_digest()}
    return dict(file_digests_of(source, name, root)) if isinstance(source, FileSource) else {}


def _set_aside(out_dir: Path, name: str) -> Path:
    """Where the rows of one source that cannot be used are written until all sources have theirs."""
    return out_dir / f"set_aside.{name}.jsonl"


def _join_set_aside(parts: list[Path], whole: Path) -> None:
    lines = [line for part in parts if part.is_file() for line in part.read_bytes().splitlines(keepends=True)]
    if lines:
        whole.write_bytes(b"".join(lines[:MAX_WRITTEN]))
    for part in parts:
        part.unlink(missing_ok=True)


def _records(source: AnySource, name: str, root: Path, note: Note, aside: SetAsideFile
             ) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(source, ArchiveSource):
        return READERS[source.reader](fetch(source, name))
    if isinstance(source, FileSource):
        return read_files(source, name, root, note, aside)
    if isinstance(source, HubSource):
        return read_hub(source, name, note, aside)
    if isinstance(source, ArithmeticSource):
        return draw_problems(source)
    return draw_text(source) if isinstance(source, RandomTextSource) else read_standard_library()


def _origin(source: AnySource) -> str:
    if isinstance(source, ArchiveSource):
        return f"{source.package} (sha256 {source.sha256})"
    if isinstance(source, HubSource):
        return f"{source.dataset} at {source.revision}"
    if isinstance(source, RandomTextSource):
        return f"{len(source.alphabet)} letters at random, seed {source.seed}"
    if isinstance(source, ArithmeticSource):
        return f"drawn as chain_sum of reasoning-gym draws, seed {source.seed}"
    return ", ".join(map(shown, source.origins or source.paths)) if isinstance(source, FileSource) else VERSION


def _card_text(card: dict[str, dict[str, Any]]) -> str:
    lines = ["# Data card", "", "| source | records | characters | train / validation / test | licence | origin |",
             "|---|---:|---:|---|---|---|"]
    for name, entry in card.items():
        splits = " / ".join(f"{entry['splits'][split]:,}" for split in ("train", "validation", "test"))
        lines.append(f"| {name} | {entry['rows']:,} | {entry['characters']:,} | {splits} | {entry['licence']} | "
                     f"{entry['origin']} |")
    lines += ["", "## Attribution", ""]
    lines += [f"- **{name}**: {entry['attribution'] or 'none given'}; digest `{entry['sha256'][:16]}`"
              for name, entry in card.items()]
    return "\n".join(lines) + "\n"
