"""The records of what a person has: files and folders of this machine, and files behind an address."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genai_core.config.addresses import is_remote
from genai_core.config.addresses import shown as without_secrets
from genai_core.config.data import FileSource, RowSource
from genai_core.data.shards.files import file_digest
from genai_core.data.sources.bad_rows import BadRow, Policy, SetAside
from genai_core.data.sources.formats.files import read_document, read_rows
from genai_core.data.sources.paths import DOCUMENT_SUFFIXES, Located, find_local, kind_of, tell_passed
from genai_core.data.sources.remote import RemoteFile, digest_of, downloaded, forget_copy, list_remote
from genai_core.data.sources.shapes.rows import ROW_KEYS, Record, Shape, read_row, recognise, renamed, repaired
from genai_core.errors import InputError

Note = Callable[[str], None]


def read_files(source: FileSource, name: str, root: Path, note: Note | None = None, set_aside: SetAside | None = None
               ) -> Iterator[Record]:
    """The table and the record of each row and document, file by file in the order of their names.

    `note` is told once what shape the rows have; `set_aside` of each bad row, where the source's policy is `skip`.
    Raises InputError for what cannot be read, by one line that names source, file and row.
    """
    reader = RowReader(source, name, note, set_aside)
    for found in find_local(source, name, root, note):
        shown = str(found.file.relative_to(root)) if found.file.is_relative_to(root) else found.file.name
        yield from _records(reader, found.file, found.path, shown, source.split or found.split)
    for remote in _remote_files(source, name, note):
        with downloaded(remote, f"collect.sources.{name}") as copy:
            yield from _records(reader, copy, remote.address, remote.address, source.split or remote.split)
        forget_copy(remote)
    reader.end(without_secrets(", ".join(source.paths)))


def first_records(source: FileSource, name: str, root: Path) -> Iterator[tuple[Located, Record]]:
    """Each file that holds a record, and its first one.

    Of the files of one ending that are documents, or that lie behind an address and would have to be downloaded, only
    the first is opened: the others are taken to be like it.
    """
    reader = RowReader(source, name, None, None)
    known: dict[str, Record] = {}
    for found in find_local(source, name, root):
        ending = kind_of(found.file)
        record = known.get(ending) or next(_records(reader, found.file, found.path, found.file.name, None), None)
        if record:
            yield found, record
            if ending in DOCUMENT_SUFFIXES:
                known[ending] = record
    known = {}
    for remote in _remote_files(source, name):
        ending = kind_of(Path(remote.name))
        if ending not in known:
            with downloaded(remote, f"collect.sources.{name}") as copy:
                record = next(_records(reader, copy, remote.address, remote.address, None), None)
            if record:
                known[ending] = record
        if ending in known:
            yield Located(remote.address, remote.split), known[ending]


def file_digests_of(source: FileSource, name: str, root: Path) -> Iterator[tuple[str, str]]:
    """A label and the SHA-256 of each file that a source reads, those behind an address included.

    The label holds the split that a folder says, on which the records depend too.
    """
    local = find_local(source, name, root)
    for number, found in enumerate(local):
        yield _label(name, number, found.file.name, found.split), file_digest(found.file)
    for number, remote in enumerate(_remote_files(source, name), start=len(local)):
        yield _label(name, number, remote.name, remote.split), digest_of(remote, f"collect.sources.{name}")


def _label(name: str, number: int, file: str, split: str | None) -> str:
    return f"{name}/{number}/{file}" + (f"/{split}" if split else "")


def _remote_files(source: FileSource, name: str, note: Note | None = None) -> list[RemoteFile]:
    passed: Counter[str] = Counter()
    field = f"collect.sources.{name}.paths"
    files = [file for address in filter(is_remote, source.paths)
             for file in list_remote(address, field, source.content, passed)]
    tell_passed(passed, name, note)
    return files


class RowReader:
    """Makes records of the rows of one source: recognises their shape once a file, and holds the others to it."""

    def __init__(self, source: RowSource, name: str, note: Note | None, set_aside: SetAside | None):
        self.source = source
        self.name = name
        self.note = note
        self.policy = Policy(source, name, set_aside)
        self.row_columns = ROW_KEYS | frozenset(source.columns.values())
        self._shape: Shape | None = None
        self._noted: set[str] = set()
        self.splits: set[str | None] = set()
        """What the column `split` says; None of a record that it does not decide about."""

    def begin(self) -> None:
        """Another file, which may have another shape."""
        self._shape = None

    def end(self, origin: str) -> None:
        """After the last file of the source, which `origin` names."""
        self.policy.check(origin)
        if self.note and self.splits == {"train"}:
            column = self.source.columns.get("split", "split")
            self.note(f"{self.name}: its column `{column}` says train of every row, so that nothing of it is held out; "
                      "let some rows say validation and test, or rename the column, so that "
                      "collect.validation_fraction and collect.test_fraction decide")

    def say(self, file: str, what: str) -> None:
        if self.note and what not in self._noted:
            self.note(f"{self.name}: {file}: {what}")
        self._noted.add(what)

    def record_of(self, row: Any, file: str, split: str | None) -> Record:
        """Raises BadRow where the row is not of the source's kind, or not of the shape of the rows before it."""
        if isinstance(row, BadRow):
            raise row
        row = renamed(row, self.source)
        shape = self._shape or recognise(row, self.source.content)
        table, record = read_row(row, shape, "split" in self.source.columns)
        if self._shape is None:
            self._shape = shape
            self.say(file, shape.describe(row))
        self.splits.add(None if split else record.get("split"))
        if split:
            record["split"] = split
        return table, record


def _records(reader: RowReader, file: Path, place: str, shown: str, split: str | None) -> Iterator[Record]:
    """Records of one file. `place` names it in errors, `shown`, without folders of this machine, in what is kept."""
    reader.begin()
    if kind_of(file) in DOCUMENT_SUFFIXES:
        yield from _document(reader, file, place, shown, split)
        return
    rows = read_rows(file, reader.row_columns)
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return
        except InputError as error:      # the file as a whole
            told = str(error).replace(str(file), place)
            raise InputError(f"collect.sources.{reader.name}: {told}") from None
        try:
            record = reader.record_of(row, Path(shown).name, split)
        except BadRow as error:
            held = None if isinstance(row, BadRow) else row
            reader.policy.refuse(f"{place if reader.policy.stops else shown}, {number}", str(error), held)
            continue
        reader.policy.good += 1
        yield record


def _document(reader: RowReader, file: Path, place: str, shown: str, split: str | None) -> Iterator[Record]:
    if reader.source.content not in ("auto", "documents"):
        raise InputError(f"collect.sources.{reader.name}: {place}: a {kind_of(file)} file is a document, and `content` "
                         f"says {reader.source.content}; give rows as json, jsonl, csv or parquet")
    try:
        text = read_document(file)
    except BadRow as error:
        is_empty_module = kind_of(file) == ".py" and "empty" in str(error)      # as __init__.py is in most packages
        if not is_empty_module:
            reader.policy.refuse(place if reader.policy.stops else shown, str(error))
        return
    except InputError as error:
        raise InputError(f"collect.sources.{reader.name}: {str(error).replace(str(file), place)}") from None
    reader.policy.good += 1
    reader.say(Path(shown).name, f"{kind_of(file)} files, a document each")
    reader.splits.add(None)
    yield "documents", repaired({"text": text} | ({"split": split} if split else {}))
