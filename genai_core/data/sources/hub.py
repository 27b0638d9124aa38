"""Datasets of the Hugging Face hub, streamed at a pinned commit; `datasets` is imported only when a source needs it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai_core.config.addresses import shown
from genai_core.config.data import HubSource
from genai_core.data.sources.bad_rows import BadRow, SetAside
from genai_core.data.sources.files import Note, RowReader
from genai_core.data.sources.formats.files import name_classes
from genai_core.data.sources.paths import HELD_OUT
from genai_core.data.sources.shapes.rows import Record
from genai_core.errors import InputError


def read_hub(source: HubSource, name: str, note: Note | None = None, set_aside: SetAside | None = None
             ) -> Iterator[Record]:
    """The table and the record of each row, as `read_files` gives them. Nothing is downloaded ahead of its reading."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"collect.sources.{name}: reading from the hub needs the extra: "
                         "pip install -c constraints.txt -e '.[huggingface]'") from None
    if Path(source.dataset).exists():      # the library would read a folder of that name in its place
        raise InputError(f"collect.sources.{name}: there is a file or folder {source.dataset} here; a dataset of the "
                         "hub is meant")
    reader = RowReader(source, name, note, set_aside)
    for number, row in enumerate(_stream(load_dataset, source, name), start=1):
        try:
            record = reader.record_of(row, source.dataset, HELD_OUT.get(source.split))
        except BadRow as error:
            reader.policy.refuse(f"{source.dataset}, row {number}", str(error), row)
            continue
        reader.policy.good += 1
        yield record
    reader.end(source.dataset)


def _stream(load_dataset: Any, source: HubSource, name: str) -> Iterator[Any]:
    try:
        rows = load_dataset(source.dataset, source.subset, split=source.split, revision=source.revision, streaming=True)
        features = getattr(rows, "features", None) or {}
        classes = {column: feature.names for column, feature in features.items() if getattr(feature, "names", None)}
        for row in rows:
            yield name_classes(row, classes)
    except Exception as error:      # whatever its libraries raise; an address in it may hold a signature
        reason = " ".join(shown(str(error)).split())[:300]
        raise InputError(f"collect.sources.{name}: {source.dataset} at {source.revision} cannot be loaded "
                         f"({type(error).__name__}: {reason})") from None
