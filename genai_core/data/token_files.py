"""Flat token files: uint16 ids of one document after another, each ended by the end-of-text token."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genai_core.errors import InputError

DTYPE = np.dtype("<u2")


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


def write_tokens(directory: Path, name: str, documents: list[list[int]], end: int, utf8_bytes: int,
                 raw_words: list[int] | None = None) -> int:
    """Write `NAME.bin`, `NAME.starts` and `NAME.json`; the number of tokens, ends included."""
    lengths = np.array([len(document) + 1 for document in documents], dtype=np.int64)
    flat = np.empty(int(lengths.sum()), dtype=DTYPE)
    position = 0
    for document in documents:
        flat[position:position + len(document)] = document
        position += len(document) + 1
        flat[position - 1] = end
    flat.tofile(directory / f"{name}.bin")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
    starts.astype("<i8").tofile(directory / f"{name}.starts")
    header = {"tokens": len(flat), "documents": len(documents), "utf8_bytes": utf8_bytes,
              "raw_words": raw_words or []}
    (directory / f"{name}.json").write_text(json.dumps(header) + "\n", encoding="utf-8")
    return len(flat)


def read_tokens(directory: Path, name: str) -> TokenFile:
    try:
        header = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        ids = np.memmap(directory / f"{name}.bin", dtype=DTYPE, mode="r")
        starts = np.fromfile(directory / f"{name}.starts", dtype="<i8")
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise InputError(f"{directory / name}: not a readable token file ({error})") from None
    if len(ids) != header["tokens"] or len(starts) != header["documents"]:
        raise InputError(f"{directory / name}.bin: {len(ids):,} tokens where its header says {header['tokens']:,}")
    raw_words = np.array(header["raw_words"] or [0] * len(starts), dtype=np.int64)
    return TokenFile(ids, starts, header["utf8_bytes"], raw_words)


def validation_names(directory: Path) -> list[str]:
    """Sources with a validation file, as `validation.SOURCE` files name them."""
    return sorted(path.name.removeprefix("validation.").removesuffix(".bin")
                  for path in directory.glob("validation.*.bin"))
