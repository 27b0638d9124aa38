"""Flat token files: the ids of one document after another, each ended by the end-of-text token."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genai_core.errors import InputError

SHORT: np.dtype = np.dtype("<u2")
LONG: np.dtype = np.dtype("<u4")
MOST_SHORT = 65_536
"""Entries of the largest vocabulary whose ids are stored in 16 bits; those of a larger one take 32."""


@dataclass(frozen=True)
class TokenFile:
    """One split of one or all sources: `ids` is a memory map, `starts` has the first token of each document and
    `raw_words` its number of words as published, 0 where unknown."""

    ids: np.ndarray
    starts: np.ndarray
    utf8_bytes: int
    raw_words: np.ndarray

    def words_before(self, token: int) -> float:
        """Published words of the first `token` tokens; within a document in proportion to its tokens."""
        boundaries = np.append(self.starts, len(self.ids))
        words = np.concatenate([[0], np.cumsum(self.raw_words)])
        return float(np.interp(token, boundaries, words))


def write_tokens(directory: Path, name: str, documents: Iterable[Sequence[int]], end: int, vocab_size: int,
                 utf8_bytes: int, raw_words: list[int] | None = None) -> int:
    """Write `NAME.bin`, document by document, then `NAME.starts` and `NAME.json`; the number of tokens, ends included.
    """
    dtype = SHORT if vocab_size <= MOST_SHORT else LONG
    starts, tokens = [], 0
    with (directory / f"{name}.bin").open("wb") as stream:
        for document in documents:
            starts.append(tokens)
            stream.write(np.array([*document, end], dtype).tobytes())
            tokens += len(document) + 1
    np.array(starts, "<i8").tofile(directory / f"{name}.starts")
    header = {"tokens": tokens, "documents": len(starts), "utf8_bytes": utf8_bytes, "raw_words": raw_words or []}
    if dtype is LONG:
        header["dtype"] = dtype.str
    (directory / f"{name}.json").write_text(json.dumps(header) + "\n", encoding="utf-8")
    return tokens


def read_tokens(directory: Path, name: str) -> TokenFile:
    try:
        header = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        dtype = {SHORT.str: SHORT, LONG.str: LONG}[str(header.get("dtype", SHORT.str))]
        ids = np.memmap(directory / f"{name}.bin", dtype=dtype, mode="r")
        starts = np.fromfile(directory / f"{name}.starts", dtype="<i8")
        raw_words = np.array(header["raw_words"] or [0] * len(starts), dtype=np.int64)
        tokens, documents, utf8_bytes = (int(header[name]) for name in ("tokens", "documents", "utf8_bytes"))
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{directory / name}: not a readable token file ({error})") from None
    if len(ids) != tokens:
        raise InputError(f"{directory / name}.bin: {len(ids):,} tokens where its header says {tokens:,}")
    if not len(starts) == len(raw_words) == documents:
        raise InputError(f"{directory / name}.starts: {len(starts):,} documents where its header says {documents:,}, "
                         f"with the words of {len(raw_words):,}")
    return TokenFile(ids, starts, utf8_bytes, raw_words)


def validation_names(directory: Path) -> list[str]:
    """Sources with a validation file, as `validation.SOURCE` files name them."""
    return sorted(path.name.removeprefix("validation.").removesuffix(".bin")
                  for path in directory.glob("validation.*.bin"))
