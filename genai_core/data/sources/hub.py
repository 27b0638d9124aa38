"""Datasets of the Hugging Face hub, read by pinned commit; `datasets` is imported only when a preset asks for one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai_core.config.data import HubSource
from genai_core.data.sources.text_files import check_messages
from genai_core.errors import InputError


def read_hub(source: HubSource, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"collect.sources.{name}: reading from the hub needs the extra: "
                         "pip install 'genai-core[huggingface]'") from None
    if Path(source.dataset).exists():      # the library would read a folder of that name in its place
        raise InputError(f"collect.sources.{name}: there is a file or folder {source.dataset} here; a dataset of the "
                         "hub is meant")
    try:
        rows = load_dataset(source.dataset, source.subset, split=source.split, revision=source.revision)
    except Exception as error:
        raise InputError(f"collect.sources.{name}: {source.dataset} at {source.revision} cannot be loaded "
                         f"({type(error).__name__}: {error})") from error
    for number, row in enumerate(rows, start=1):
        place = f"{source.dataset}, row {number}"
        if source.content == "chats":
            yield "chats", {"messages": check_messages(row.get("messages"), place), "accepted": []}
        elif isinstance(row.get(source.text_column), str):
            yield "documents", {"text": row[source.text_column]}
        else:
            raise InputError(f"{place}: no text in column {source.text_column!r}; set text_column")
