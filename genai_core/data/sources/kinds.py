"""Which kinds of content the files of a source turn out to hold, told by the first record of each."""

from pathlib import Path
from typing import NamedTuple

from genai_core.config.addresses import shown
from genai_core.config.data import FileSource
from genai_core.data.sources.files import first_records
from genai_core.data.sources.paths import Located
from genai_core.errors import InputError


class Kind(NamedTuple):
    content: str
    is_conversation: bool
    """Whether the records are conversations: ratings may be of texts, too."""

    def __str__(self) -> str:
        what = "conversations" if self.is_conversation else "texts"
        return f"ratings of {what}" if self.content == "ratings" else self.content


def kinds_of_files(name: str, source: FileSource, root: Path) -> dict[Kind, list[Located]]:
    """The files of each kind, in their order; one without any record has none. Raises InputError where no file has any.
    """
    kinds: dict[Kind, list[Located]] = {}
    for located, (table, record) in first_records(source, name, root):
        content = "labelled" if table == "documents" and record.get("label") is not None else table
        kinds.setdefault(Kind(content, bool(record.get("messages"))), []).append(located)
    if not kinds:
        raise InputError(f"collect.sources.{name}: no record in the source; remove it or set enabled: false")
    return kinds


def recognise_content(name: str, source: FileSource, root: Path) -> Kind:
    """The kind of content of a source of files. Raises InputError where there is none, or more than one."""
    kinds = kinds_of_files(name, source, root)
    if len(kinds) > 1:
        (one, (first, *_)), (other, (second, *_)) = list(kinds.items())[:2]
        raise InputError(f"collect.sources.{name}: {one} in {shown(first.path)} and {other} in {shown(second.path)}, "
                         "and a source is of one kind; split it into a source for each, with the paths of its files")
    return next(iter(kinds))
