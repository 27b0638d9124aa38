"""Which files a source names: paths, globs and folders of this machine, never outside the roots its owner allows."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from genai_core.config.addresses import is_remote
from genai_core.config.data import Content, FileSource
from genai_core.errors import InputError
from genai_core.roots import require_allowed

DOCUMENT_SUFFIXES = (".txt", ".md", ".html", ".htm", ".py")
TABLE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSION = (".gz", ".zst")
KNOWN_KINDS = f"take one of {', '.join(DOCUMENT_SUFFIXES + TABLE_SUFFIXES)}, each also with .gz or .zst"
OWN = "data"
"""Folder of the workspace that holds what the pipeline makes, not what it is given."""
_WILDCARDS = frozenset("*?[")

HELD_OUT = {"validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "test": "test"}
"""Splits that a dataset keeps apart, by the names they go by. What it calls train is divided by the fractions."""

_DATASET_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""What a saved dataset holds beside its rows."""


class Located(NamedTuple):
    """A file of a source."""

    path: str
    """Where it lies on this machine, or its address."""
    split: str | None
    """`validation` or `test` where the file is of that split of a saved dataset."""

    @property
    def file(self) -> Path:
        """The file, where it lies on this machine."""
        return Path(self.path)


def find_local(source: FileSource, name: str, root: Path, note: Callable[[str], None] | None = None) -> list[Located]:
    """The files of this machine that a source's paths name, sorted; `note` is told what was passed over.

    Raises InputError when a path names none, leads out of the allowed roots or to the pipeline's own datasets, or names
    a file of an unknown kind. In a folder such files are passed over, as are hidden ones.
    """
    files: dict[Path, Located] = {}
    passed: Counter[str] = Counter()
    field = f"collect.sources.{name}.paths"
    for pattern in (path for path in source.paths if not is_remote(path)):
        absolute = Path(pattern).expanduser() if pattern.startswith(("~", "/")) else root / pattern
        require_allowed(absolute, field, root)
        if absolute.is_dir():
            matches = list(_in_folder(absolute, source, passed))
        else:
            matches = [Located(str(file), None) for file in _matching(absolute)]
            if not matches:
                raise InputError(f"{field}: no file matches {absolute}{_reason(absolute)}")
        if not matches:
            kinds = ", ".join(sorted(passed)) or "nothing"
            raise InputError(f"{field}: no file in the folder {absolute} can be read (it holds {kinds}); "
                             f"{KNOWN_KINDS}")
        for found in matches:
            require_allowed(found.file, field, root)      # a link may lead out again
            if found.file.is_relative_to(root / OWN):
                raise InputError(f"{field}: {found.file} lies in the folder of the pipeline's own datasets, where DVC "
                                 "removes what is not of them; keep your files in another one")
            if not is_known(found.file):
                raise InputError(f"collect.sources.{name}: {found.file}: unknown kind of file; {KNOWN_KINDS}")
            files.setdefault(found.file, found)
    tell_passed(passed, name, note)
    return [files[file] for file in sorted(files)]


def tell_passed(passed: Counter[str], name: str, note: Callable[[str], None] | None) -> None:
    if passed and note:
        left_out = ", ".join(f"{count:,} {kind}" for kind, count in passed.most_common(8))
        note(f"{name}: passed over in the folder: {left_out}")


def is_known(file: PurePath) -> bool:
    return kind_of(file) in DOCUMENT_SUFFIXES + TABLE_SUFFIXES


def kind_of(file: PurePath) -> str:
    """The ending that tells the kind of a file, in lower case, without that of its compression."""
    return (file.with_suffix("") if file.suffix.lower() in COMPRESSION else file).suffix.lower()


def _reason(path: Path) -> str:
    return " (a symbolic link to nothing)" if path.is_symlink() else ""


def _matching(pattern: Path) -> Iterator[Path]:
    """Files that match, hidden ones only where the pattern says so. `**` follows no link, which could be a circle."""
    parts = pattern.parts
    fixed = next((number for number, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts))
    if fixed == len(parts):
        yield from [pattern] if pattern.is_file() else []
        return
    base = Path(*parts[:fixed])
    hidden_is_meant = any(part.startswith(".") for part in parts[fixed:])
    wild = [part if part == "**" else part.replace("**", "*") for part in parts[fixed:]]
    for file in base.glob("/".join([*wild, "*"] if wild[-1] == "**" else wild)):
        hidden = any(part.startswith(".") for part in file.relative_to(base).parts)
        if file.is_file() and (hidden_is_meant or not hidden):
            yield file


def _in_folder(folder: Path, source: FileSource, passed: Counter[str]) -> Iterator[Located]:
    """Every file below `folder` that can be read; links to folders are not followed."""
    files = []
    for directory, folders, names in os.walk(folder, onerror=_cannot_be_listed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(directory) / name for name in names]
    inside = [PurePosixPath(file.relative_to(folder)) for file in files if file.is_file()]
    for path, split in select_readable(inside, source.content, passed):
        yield Located(str(folder / path), split)


def select_readable(paths: list[PurePosixPath], content: Content, passed: Counter[str]
                    ) -> Iterator[tuple[PurePosixPath, str | None]]:
    """Of the files of a folder, by their paths in it, those that hold data, and the split that the folder says.

    Hidden files and the bookkeeping of a saved dataset are left out; `passed` counts others that cannot be read. Beside
    tables, README and licence files describe the data: they are documents only where the source says so.
    """
    there = set(paths)
    visible = [path for path in paths if path.name not in _DATASET_FILES
               and not any(part.startswith(".") for part in path.parts)]
    has_tables = any(kind_of(path) in TABLE_SUFFIXES for path in visible)
    for path in sorted(visible):
        is_document = kind_of(path) in DOCUMENT_SUFFIXES
        describes = has_tables and path.name.upper().startswith(("README", "LICENSE", "LICENCE"))
        is_unwanted = is_document and content != "documents" and (describes or content != "auto")
        if not is_known(path) or is_unwanted:
            passed[path.name if is_unwanted and describes else kind_of(path) or "without an ending"] += 1
        elif path.name.startswith("cache-") and path.with_name("state.json") in there:
            continue      # what `datasets` keeps beside the rows of a saved dataset of earlier work on them
        else:
            is_part = path.parent.parent / "dataset_dict.json" in there and path.parent.name
            yield path, HELD_OUT.get(path.parent.name) if is_part else None


def _cannot_be_listed(error: OSError) -> None:
    raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror})")
