"""A model on the hub: looked up first, so that its terms and its size are known before anything large is downloaded.
"""

import errno
import json
import re
import shutil
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from genai_core.bases.files import GGUF, is_read, weights_among
from genai_core.config.base_model import HUB_NAME, BaseModelConfig
from genai_core.errors import InputError

INDEX = "model.safetensors.index.json"
_UNREACHED = {"TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"}
"""Errors, by the names of their classes, that say that there was no answer."""


@dataclass(frozen=True)
class HubModel:
    """A model on the hub as it is at a commit."""

    name: str
    commit: str
    files: dict[str, int]
    """Bytes of the files that are wanted, by name."""
    gguf: str
    """Name of the GGUF file that holds the weights; empty for safetensors."""
    parameters: int
    """Number of weights, or where the hub does not say it the fewest that the files can hold."""
    cached: Path | None = None
    """The files of an earlier download, where no network leads to the hub."""

    def card(self) -> Path:
        """The directory of what is small: card, terms and config."""
        return self.cached or self._fetched([name for name in self.files if not _is_weights(name)])

    def download(self) -> Path:
        """The directory of all its files. Raises InputError where the disk has no room for them."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.constants import HF_HUB_CACHE

        if self.cached:
            return self.cached
        needed = sum(size for name, size in self.files.items()
                     if not isinstance(try_to_load_from_cache(self.name, name, revision=self.commit), str))
        cache = Path(HF_HUB_CACHE)
        free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
        if needed > free:
            raise InputError(f"base.source: {self.name} takes {needed / 2**30:.1f} GiB in {cache}, where "
                             f"{free / 2**30:.1f} GiB are free; make room, or set HF_HOME to another disk")
        return self._fetched(list(self.files))

    def _fetched(self, names: list[str]) -> Path:
        return _fetched(self.name, self.commit, names)


def look_up(config: BaseModelConfig) -> HubModel:
    """The model that `source` names. Raises InputError where there is none, it is gated, its weights cannot be used, or
    no network leads to the hub and no earlier download is here."""
    name, named = _parts(config.source)
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache
    except ImportError:
        raise InputError("base.source: a model on the hub needs the extra: pip install -c constraints.txt "
                         "-e '.[transformers]'") from None
    try:
        info = HfApi().model_info(name, revision=config.revision or None, files_metadata=True, timeout=20)
    except Exception as error:      # whatever its libraries raise
        here = try_to_load_from_cache(name, named or "config.json", revision=config.revision or None)
        if not _is_unreached(error) or not isinstance(here, str):
            raise _hub_error(name, error) from None
        return HubModel(name, config.revision, {}, named, 0, cached=Path(here).parent)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or [] if "/" not in file.rfilename}
    if named and named not in sizes:
        raise InputError(f"base.source: {name} has no file {named} on the hub; there are "
                         f"{', '.join(sorted(file for file in sizes if file.endswith(GGUF))) or 'no GGUF files'}")
    gguf, commit = named or weights_among(sizes, name), str(info.sha)
    weights = [gguf] if gguf else _parts_of_weights(name, commit, sizes)
    files = {file: size for file, size in sizes.items() if is_read(file) and (file in weights or not _is_weights(file))}
    told = (info.gguf or {}).get("total") if gguf else getattr(info.safetensors, "total", None)
    least = sum(sizes.get(file, 0) for file in weights) // 4      # float32 is the widest
    return HubModel(name, commit, files, gguf, int(told or least))


def commit_of(source: str, revision: str = "") -> str:
    """The commit that a revision of a model on the hub is: a commit itself, else that of today of a branch or a tag,
    or the newest where none is named. Raises InputError."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    name, _ = _parts(source)
    try:
        return str(HfApi().model_info(name, revision=revision or None, timeout=20).sha)
    except Exception as error:      # whatever its libraries raise
        raise _hub_error(name, error) from None


def _parts(source: str) -> tuple[str, str]:
    """The name of a model and of a file of it, which may be empty. Raises InputError."""
    found = re.fullmatch(HUB_NAME, source)
    if not found:
        raise InputError(f"base.source: there is no directory and no GGUF file {source}, and it is no name of a model "
                         "on the hub (org/name, or org/name/FILE.gguf)")
    return found["name"], found["file"] or ""


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", GGUF))


def _parts_of_weights(name: str, commit: str, sizes: dict[str, int]) -> list[str]:
    """The safetensors files that `transformers` reads: others beside them may hold the same weights again."""
    if "model.safetensors" in sizes or INDEX not in sizes:
        return ["model.safetensors"] if "model.safetensors" in sizes else [file for file in sizes if _is_weights(file)]
    try:
        index: Any = json.loads((_fetched(name, commit, [INDEX]) / INDEX).read_text(encoding="utf-8"))
        return sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"base.source: {INDEX} of {name} on the hub names no files ({error}); take another base"
                         ) from None


def _fetched(name: str, commit: str, names: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=[escape(each) for each in names]))
    except Exception as error:      # whatever its libraries raise
        raise _hub_error(name, error) from None


def _is_unreached(error: Exception) -> bool:
    return bool(_UNREACHED & {kind.__name__ for kind in type(error).__mro__})


def _hub_error(name: str, error: Exception) -> InputError:
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return InputError(f"base.source: {name} is gated: accept its terms on its page, and log in with "
                          "`hf auth login` (or HF_TOKEN)")
    if kind in ("RepositoryNotFoundError", "RevisionNotFoundError"):
        return InputError(f"base.source: there is no directory {name} here, and the hub has no such model or revision, "
                          "or it is private: log in with `hf auth login` (or HF_TOKEN)")
    if _is_unreached(error):
        return InputError(f"base.source: there is no directory {name} here, and the hub cannot be reached ({kind}); "
                          "check the network, or name a directory")
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"base.source: the disk is full, so that {name} cannot be downloaded; make room, or set "
                          "HF_HOME to another disk")
    return InputError(f"base.source: {name} cannot be downloaded from the hub ({kind}: "
                      f"{' '.join(str(error).split())[:150]}); try again, or name a directory")
