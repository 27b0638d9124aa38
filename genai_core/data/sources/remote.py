"""Files behind an address (S3, Google storage, a web server), through fsspec: each one brought whole or not at all.

A run looks at a file several times: what it holds, its digest, its rows. So a copy is kept for the version that the
server announces (an ETag or a time) until its rows are read to the end. All that a process keeps takes no more than a
tenth of the free disk, the oldest goes first, so that the disk need hold only the largest file beside. Copies that
nobody came back for go once they are a day old, with the next process that reads from an address. The digest of a file
is remembered for good, so that to plan a run does not download everything again. Where no version is announced, each
look downloads.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from genai_core.config.addresses import HOW_TO_LOG_IN, shown
from genai_core.config.data import Content
from genai_core.data.shards.files import file_digest
from genai_core.data.sources.paths import KNOWN_KINDS, is_known, select_readable
from genai_core.errors import InputError
from genai_core.roots import cache_directory, require_allowed_address

_PACKAGES = {"s3": "pip install -c constraints.txt -e '.[s3]'", "gs": "pip install gcsfs",
             "http": "pip install aiohttp"}
_VERSIONS = ("ETag", "etag", "VersionId", "generation", "md5Hash", "LastModified",
             "Last-Modified", "mtime")
_WILDCARDS = frozenset("*?[")
_SECONDS_KEPT = 86400


@dataclass(frozen=True)
class RemoteFile:
    address: str
    """Address as it may be shown: without a query."""
    path: str
    """What the file system of its scheme calls it."""
    size: int | None
    """Bytes as the server announces them; None where it does not."""
    version: str
    """What the server tells one state of the file from another by; empty where it announces nothing."""
    split: str | None
    """`validation` or `test` where the file is of that split of a saved dataset."""
    system: Any = field(repr=False, compare=False)
    """File system of fsspec that reads it."""

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.address).path).name


def list_remote(address: str, field: str, content: Content, passed: Counter[str]) -> list[RemoteFile]:
    """The files that an address names, sorted: one, those of a folder that can be read, or those that match.

    Raises InputError where there is none, or one of an unknown kind; in a folder `passed` counts these.
    """
    require_allowed_address(address, field)
    system, scheme = _file_system(address, field)
    path = address if scheme == "http" else address.partition("://")[2]
    with _explained(address, field):
        found: list[tuple[str, str | None]]
        if scheme != "http" and _WILDCARDS & set(path):
            found = [(match, None) for match in sorted(system.glob(path)) if system.isfile(match)]
        elif scheme == "http" or system.isfile(path):
            found = [(path, None)]
        else:
            folder = path.rstrip("/")
            inside = [PurePosixPath(file.removeprefix(f"{folder}/")) for file in system.find(path)]
            found = [(f"{folder}/{file}", split) for file, split in select_readable(inside, content, passed)]
        files = [_announced(system, scheme, address, *entry, field) for entry in found]
    if not files:
        holds = f" (it holds {', '.join(sorted(passed))}); {KNOWN_KINDS}" if passed else ""
        raise InputError(f"{field}: no file matches {shown(address)}{holds}")
    unknown = next((file.address for file in files if not is_known(PurePosixPath(file.name))), None)
    if unknown:
        raise InputError(f"{field}: {unknown}: unknown kind of file; {KNOWN_KINDS}")
    return files


def digest_of(file: RemoteFile, field: str) -> str:
    """SHA-256 of a remote file, remembered for its announced version."""
    memory = _remembered(file, "json")
    if file.version and memory.is_file():
        return str(json.loads(memory.read_text(encoding="utf-8"))["sha256"])
    with downloaded(file, field) as copy:
        digest = file_digest(copy)
    if file.version:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf-8") as out:
            json.dump({"address": file.address, "sha256": digest}, out)
        Path(out.name).replace(memory)
    return digest


@contextmanager
def downloaded(file: RemoteFile, field: str) -> Iterator[Path]:
    """The file on this machine for as long as the context lasts. Raises InputError for half a download."""
    folder = cache_directory() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    _copies(_remembered(file, "copy").parent)      # old ones go, also where nothing is kept
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy = Path(scratch) / (file.name or "file")
        try:
            os.link(_remembered(file, "copy"), copy)      # a second name: nobody can take the file away meanwhile
        except OSError:
            _download(file, copy, field)
            _keep(file, copy)
        yield copy


def forget_copy(file: RemoteFile) -> None:
    """Remove the copy that `downloaded` kept: the file has been read to the end."""
    _remove_copy(_remembered(file, "copy"))


def _remembered(file: RemoteFile, suffix: str) -> Path:
    """Where what is known of this version of a file lies: its digest (`json`) or its bytes (`copy`)."""
    key = hashlib.sha256(f"{file.path}\n{file.version}\n{file.size}".encode()).hexdigest()
    return cache_directory() / "remote" / f"{key}.{suffix}"


def _download(file: RemoteFile, copy: Path, field: str) -> None:
    with _explained(file.address, field):
        file.system.get_file(file.path, str(copy))
    size = copy.stat().st_size
    if file.size is not None and size != file.size:
        raise InputError(f"{field}: {file.address}: {size:,} of {file.size:,} bytes came; nothing of it was used, "
                         "try again")


def _keep(file: RemoteFile, copy: Path) -> None:
    kept, size, most = _remembered(file, "copy"), copy.stat().st_size, shutil.disk_usage(copy).free / 10
    if not file.version or size > most:
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    copies = _copies(kept.parent)
    while copies and sum(copies.values()) + size > most:
        _remove_copy(next(iter(copies)))
    with suppress(OSError):      # it is there, or the file system has no second names: then it is downloaded again
        os.link(copy, kept)
        copies[kept] = size


@cache
def _copies(folder: Path) -> dict[Path, int]:
    """The copies in a folder and their sizes, the oldest first, as this process found them and has kept on: told at its
    first use, when those go that are older than a day."""
    found = []
    for path in folder.glob("*.copy"):
        with suppress(FileNotFoundError):      # another process removes it in this moment
            status = path.stat()
            if status.st_mtime < time.time() - _SECONDS_KEPT:
                path.unlink()
            else:
                found.append((status.st_mtime, path, status.st_size))
    return {path: size for _, path, size in sorted(found)}


def _remove_copy(kept: Path) -> None:
    _copies(kept.parent).pop(kept, None)
    kept.unlink(missing_ok=True)


def _file_system(address: str, field: str) -> tuple[Any, str]:
    import fsspec

    scheme = address.partition("://")[0].lower().removesuffix("s" if address.lower().startswith("https") else "")
    options: dict[str, Any] = {"skip_instance_cache": True}      # another time, with other credentials perhaps
    try:
        if scheme == "http":
            import aiohttp

            # proxies and .netrc of the environment; no limit on the whole download, one on its silence
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
            options["client_kwargs"] = {"trust_env": True, "timeout": timeout}
        return fsspec.filesystem(scheme, **options), scheme
    except ImportError:
        raise InputError(f"{field}: to read {shown(address)} needs another package: {_PACKAGES[scheme]}") from None


def _announced(system: Any, scheme: str, address: str, path: str, split: str | None, field: str
               ) -> RemoteFile:
    info = system.info(path)
    if scheme == "http" and info.get("url", path) != path:      # a redirect must not lead where the address may not
        require_allowed_address(str(info["url"]), field)
    version = next((f"{name}={info[name]}" for name in _VERSIONS if info.get(name)), "")
    return RemoteFile(shown(address if scheme == "http" else f"{scheme}://{path}"), path, info.get("size"), version,
                      split, system)


@contextmanager
def _explained(address: str, field: str) -> Iterator[None]:
    """Errors of the libraries as one line; their own text may hold an address with a signature."""
    place = f"{field}: {shown(address)}"
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{place}: there is no such file, or the server does not answer") from None
    except PermissionError:
        raise InputError(f"{place}: access is refused; {HOW_TO_LOG_IN}") from None
    except Exception as error:
        kind = type(error).__name__
        hint = HOW_TO_LOG_IN if "credential" in kind.lower() else "check the network and the address"
        raise InputError(f"{place}: cannot be read ({kind}); {hint}") from None
