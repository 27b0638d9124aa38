"""Token files: the ids of one document after another, each ended by the end-of-text token.

`NAME.json` is the header, `NAME.starts` has the first token of each document. The ids are in `NAME.bin`, or in the
parts that the header names, one for each shard of the documents, so that many processes write them and none holds them
all. They are read as memory maps: what is in memory is what a batch takes.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from genai_core.errors import InputError

SHORT: np.dtype = np.dtype("<u2")
LONG: np.dtype = np.dtype("<u4")
MOST_SHORT = 65_536
"""Entries of the largest vocabulary whose ids are stored in 16 bits; those of a larger one take 32."""
_OPEN_PARTS = 256
_PART = re.compile(r"[a-z]+-(.+)-\d+")


class Parts:
    """Ids in several files, indexed as one array is: by a slice or by an array of places."""

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int], dtype: np.dtype):
        self.dtype = dtype
        self._paths = tuple(paths)
        self._bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._open = lru_cache(_OPEN_PARTS)(self._map)      # an operating system allows some ten thousand maps

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            return self._slice(start, max(start, stop))
        places = np.asarray(key)
        found = np.empty(places.shape, self.dtype)
        part_of = np.searchsorted(self._bounds, places, side="right") - 1
        for part in np.unique(part_of):
            here = part_of == part
            found[here] = self._open(int(part))[places[here] - self._bounds[part]]
        return found

    def tolist(self) -> list[int]:
        ids: list[int] = self[:].tolist()
        return ids

    def _slice(self, start: int, stop: int) -> np.ndarray:
        first = int(np.searchsorted(self._bounds, start, side="right")) - 1
        pieces = []
        while start < stop:
            end = min(stop, int(self._bounds[first + 1]))
            pieces.append(self._open(first)[start - self._bounds[first]:end - self._bounds[first]])
            start, first = end, first + 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def _map(self, part: int) -> np.ndarray:
        return np.memmap(self._paths[part], self.dtype, "r")


@dataclass(frozen=True)
class TokenFile:
    """One split of one or all sources: `ids` are memory maps, `starts` has the first token of each document and
    `raw_words` its number of words as published, 0 where unknown."""

    ids: np.ndarray | Parts
    starts: np.ndarray
    utf8_bytes: int
    raw_words: np.ndarray
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First token of each source, and the first one behind it; nothing for files that do not tell sources apart."""

    def words_before(self, token: int) -> float:
        """Published words of the first `token` tokens; within a document in proportion to its tokens."""
        boundaries = np.append(self.starts, len(self.ids))
        words = np.concatenate([[0], np.cumsum(self.raw_words)])
        return float(np.interp(token, boundaries, words))


def dtype_of(vocab_size: int) -> np.dtype:
    """The type of as few bytes as hold the ids of a vocabulary."""
    return SHORT if vocab_size <= MOST_SHORT else LONG


def write_tokens(directory: Path, name: str, documents: Iterable[Sequence[int]], end: int, vocab_size: int,
                 utf8_bytes: int, raw_words: list[int] | None = None) -> int:
    """Write `NAME.bin`, document by document, then `NAME.starts` and `NAME.json`; the number of tokens, ends included.
    """
    dtype = dtype_of(vocab_size)
    starts, tokens = [], 0
    with (directory / f"{name}.bin").open("wb") as stream:
        for document in documents:
            starts.append(tokens)
            stream.write(np.array([*document, end], dtype).tobytes())
            tokens += len(document) + 1
    np.array(starts, "<i8").tofile(directory / f"{name}.starts")
    write_header(directory, name, tokens, len(starts), utf8_bytes, vocab_size, raw_words)
    return tokens


def write_header(directory: Path, name: str, tokens: int, documents: int, utf8_bytes: int, vocab_size: int,
                 raw_words: list[int] | None = None, parts: dict[str, int] | None = None) -> None:
    """Write `NAME.json`. `parts` are the files, without `.bin`, that the ids are in, with their numbers of tokens."""
    header: dict[str, object] = {"tokens": tokens, "documents": documents, "utf8_bytes": utf8_bytes,
                                 "raw_words": raw_words if raw_words and any(raw_words) else []}
    if dtype_of(vocab_size) is LONG:
        header["dtype"] = LONG.str
    if parts is not None:
        header["parts"] = parts
    (directory / f"{name}.json").write_text(json.dumps(header) + "\n", encoding="utf-8")


def read_tokens(directory: Path, name: str) -> TokenFile:
    """The token file NAME. Raises InputError when it is missing, empty, damaged or not what its header says."""
    try:
        header = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        dtype = {SHORT.str: SHORT, LONG.str: LONG}[str(header.get("dtype", SHORT.str))]
        tokens, documents, utf8_bytes = (int(header[name]) for name in ("tokens", "documents", "utf8_bytes"))
        parts = {str(part): int(length) for part, length in header.get("parts", {name: tokens}).items()}
        paths = [directory / f"{part}.bin" for part in parts]
        sizes = [path.stat().st_size // dtype.itemsize for path in paths]
        starts = np.memmap(directory / f"{name}.starts", "<i8", "r")
        raw_words = np.array(header["raw_words"] or [0], dtype=np.int64)
        if not header["raw_words"]:
            raw_words = np.broadcast_to(raw_words, len(starts))
        ids = np.memmap(paths[0], dtype, "r") if len(paths) == 1 else Parts(paths, list(parts.values()), dtype)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(f"{directory / name}: not a readable token file ({error})") from None
    for path, size, length in zip(paths, sizes, parts.values(), strict=True):
        if size != length:
            raise InputError(f"{path}: {size:,} tokens where its header says {length:,}")
    if len(ids) != tokens:
        raise InputError(f"{directory / name}: {len(ids):,} tokens in its parts where its header says {tokens:,}")
    if not len(starts) == len(raw_words) == documents:
        raise InputError(f"{directory / name}.starts: {len(starts):,} documents where its header says {documents:,}, "
                         f"with the words of {len(raw_words):,}")
    return TokenFile(ids, starts, utf8_bytes, raw_words, _sources(parts))


def _sources(parts: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Where the tokens of each source lie: parts are called `SPLIT-SOURCE-NUMBER`, those of a source in a row."""
    sources: dict[str, tuple[int, int]] = {}
    end = 0
    for part, length in parts.items():
        start, end = end, end + length
        if match := _PART.fullmatch(part):
            sources[match[1]] = (sources.get(match[1], (start, 0))[0], end)
    return sources


def validation_names(directory: Path) -> list[str]:
    """Sources with a validation file, as `validation.SOURCE` files name them."""
    return sorted(path.name.removeprefix("validation.").removesuffix(".bin")
                  for path in directory.glob("validation.*.bin"))
