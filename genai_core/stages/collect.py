"""The stage collect: the declared sources become one set of Parquet tables and a data card."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai_core.config.data import (
    AnySource,
    ArchiveSource,
    CollectConfig,
    FileSource,
    HubSource,
    RandomTextSource,
    StandardLibrarySource,
)
from genai_core.context import Context, Result
from genai_core.data.sources.archives import fetch
from genai_core.data.sources.hub import read_hub
from genai_core.data.sources.random_text import draw_text
from genai_core.data.sources.readers import READERS
from genai_core.data.sources.standard_library import VERSION, library_digest, read_standard_library
from genai_core.data.sources.text_files import find_files, read_files
from genai_core.data.splits import split_of
from genai_core.data.tables import SCHEMAS, TEXT_COLUMNS, Rows, write_table
from genai_core.errors import InputError


def run(config: CollectConfig, *, out_dir: Path, context: Context) -> Result:
    """Write the tables (see tables.py) and the data card to `out_dir`.

    Relative paths of file sources start at `context.root`. Raises InputError for a source that is missing, empty,
    unreadable, of the wrong schema or with another hash.
    """
    reporter = context.reporter
    tables: dict[str, Rows] = {name: [] for name in SCHEMAS}
    card = {}
    enabled = {name: source for name, source in config.sources.items() if source.enabled}
    for done, (name, source) in enumerate(enabled.items()):
        reporter.progress(done, len(enabled), "sources")
        rows = _rows_of(source, name, config, context.root)
        if not any(rows.values()):
            raise InputError(f"collect.sources.{name}: no record in the source; remove it or set enabled: false")
        for table, added in rows.items():
            tables[table].extend(added)
        card[name] = _describe(source, rows)
        reporter.note(f"{name}: {card[name]['rows']:,} records, {card[name]['characters']:,} characters, "
                      f"licence: {source.licence}")
    reporter.progress(len(enabled), len(enabled), "sources")
    for table, rows_of_table in tables.items():
        write_table(rows_of_table, table, out_dir)
    (out_dir / "data_card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out_dir / "DATA_CARD.md").write_text(_card_text(card), encoding="utf-8")
    characters = sum(entry["characters"] for entry in card.values())
    counts = {name: len(rows) for name, rows in tables.items()}
    return Result({"sources": len(card), "characters": characters} | counts)


def file_digests(config: CollectConfig, root: Path) -> dict[str, str]:
    """SHA-256 of the files on this machine that sources read: what the tables depend on beside the config."""
    digests = {}
    for name, source in config.sources.items():
        if isinstance(source, StandardLibrarySource) and source.enabled:
            digests[f"{name}/{VERSION}"] = library_digest()
        if isinstance(source, FileSource) and source.enabled:
            for number, file in enumerate(find_files(source, name, root)):
                with file.open("rb") as stream:
                    digests[f"{name}/{number}/{file.name}"] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _rows_of(source: AnySource, name: str, config: CollectConfig, root: Path) -> dict[str, Rows]:
    records: list[tuple[str, dict[str, Any]]] = list(_records(source, name, root))
    if source.limit and len(records) > source.limit:
        records = [records[index * len(records) // source.limit] for index in range(source.limit)]
    rows: dict[str, Rows] = {table: [] for table in SCHEMAS}
    for number, (table, record) in enumerate(records):
        part = record.pop("part", None)
        split_by = record.pop("split_by", None) or record.get("text") or record["messages"][0]["content"]
        split = record.pop("split", None) or split_of(split_by, config.validation_fraction, config.test_fraction)
        rows[table].append({"id": f"{name}/{number:07d}", "source": f"{name}/{part}" if part else name,
                            "split": split, "licence": source.licence, **record})
    return rows


def _records(source: AnySource, name: str, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(source, ArchiveSource):
        return READERS[source.reader](fetch(source, name))
    if isinstance(source, FileSource):
        return read_files(source, name, root)
    if isinstance(source, HubSource):
        return read_hub(source, name)
    return draw_text(source) if isinstance(source, RandomTextSource) else read_standard_library()


def _describe(source: AnySource, rows: dict[str, Rows]) -> dict[str, Any]:
    """The data card's entry: what there is, whose it is, and a digest of every record."""
    digest = hashlib.sha256()
    characters = 0
    for table in rows.values():
        for row in table:
            line = json.dumps(row, sort_keys=True, ensure_ascii=False, default=bytes.hex)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
            characters += sum(len(row.get(column) or "") for column in TEXT_COLUMNS)
            characters += sum(len(message["content"]) for message in row.get("messages") or ())
    return {"licence": source.licence, "attribution": source.attribution, "kind": source.kind,
            "origin": _origin(source), "rows": sum(len(table) for table in rows.values()), "characters": characters,
            "splits": _count_splits(rows), "sha256": digest.hexdigest()}


def _origin(source: AnySource) -> str:
    if isinstance(source, ArchiveSource):
        return f"{source.package} (sha256 {source.sha256})"
    if isinstance(source, HubSource):
        return f"{source.dataset} at {source.revision}"
    if isinstance(source, RandomTextSource):
        return f"{len(source.alphabet)} letters at random, seed {source.seed}"
    return ", ".join(source.paths) if isinstance(source, FileSource) else VERSION


def _count_splits(rows: dict[str, Rows]) -> dict[str, int]:
    counts = {"train": 0, "validation": 0, "test": 0}
    for table in rows.values():
        for row in table:
            counts[row["split"]] += 1
    return counts


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
