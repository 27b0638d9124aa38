"""What tokenizing does to one shard: count it, draw a sample of its training text, write its ids."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genai_core.data.chat import plain
from genai_core.data.shards.files import source_of
from genai_core.data.shards.tables import MESSAGE_COLUMNS, TEXT_COLUMNS, texts_of
from genai_core.data.tokens.token_files import dtype_of
from genai_core.data.tokens.tokenizer import Encoder, load_tokenizer


@dataclass(frozen=True)
class Encoding:
    """How shards are encoded."""

    out_dir: Path
    """Folder of the tokenizer, and of the parts of the training file."""
    scratch: Path
    """Folder of the parts that are to be joined."""
    end: int
    """Id of the token that ends a document."""
    vocab_size: int
    fast: bool
    """Whether `gigatoken` encodes."""


@dataclass
class Counted:
    """What a shard holds."""

    documents: Counter[str]
    """Number of rows by split."""
    train_characters: int


@dataclass
class Encoded:
    """The documents of a shard that go to one file."""

    name: str
    """Name of the file, `train` or `SPLIT.SOURCE`."""
    part: str
    """Name of the part, of which the shard makes one."""
    tokens: int
    documents: int
    utf8_bytes: int
    raw_words: list[int]
    """Words of each document as published, 0 where unknown; empty for training text."""


def count_shard(path: Path) -> Counted:
    """Rows by split, and characters of training text."""
    table = pq.read_table(path)
    splits = Counter(table["split"].to_pylist())
    train = table.filter(pc.equal(table["split"], "train"))
    if set(train.column_names) & {*TEXT_COLUMNS, *MESSAGE_COLUMNS} == {"text"}:
        return Counted(splits, pc.sum(pc.utf8_length(train["text"])).as_py() or 0)
    return Counted(splits, sum(len(text) for row in train.to_pylist() for text in texts_of(row)))


def sample_shard(path: Path, share: float) -> list[str]:
    """Training text of a shard: of all its rows the given share, chosen by the hash of their ids."""
    table = pq.read_table(path)
    drawn = [split == "train" and _is_drawn(identifier, share) for split, identifier
             in zip(table["split"].to_pylist(), table["id"].to_pylist(), strict=True)]
    return [plain(text) for row in table.filter(pa.array(drawn, pa.bool_())).to_pylist() for text in texts_of(row)]


def encode_shard(path: Path, encoding: Encoding) -> list[Encoded]:
    """Write the ids of a shard's documents, those of each split to a part of its own."""
    table = pq.read_table(path, columns=["split", "text", "raw_words"])
    splits = np.array(table["split"].to_pylist())
    encoder = _encoder(encoding.out_dir, encoding.fast)
    found = []
    for split in sorted(set(splits.tolist())):
        rows = table.filter(pa.array(splits == split))
        texts = [plain(text) for text in rows["text"].to_pylist()]
        ids, lengths = encoder(texts)
        part = f"{split}-{path.stem}"
        ends = lengths.cumsum()
        whole = np.insert(ids, ends, encoding.end).astype(dtype_of(encoding.vocab_size))
        whole.tofile((encoding.out_dir if split == "train" else encoding.scratch) / f"{part}.bin")
        starts = np.concatenate([[0], ends[:-1]]) + np.arange(len(lengths))
        starts.astype("<i8").tofile(encoding.scratch / f"{part}.starts")
        words = [] if split == "train" else [count or 0 for count in rows["raw_words"].to_pylist()]
        name = "train" if split == "train" else f"{split}.{source_of(path)}"
        found.append(Encoded(name, part, len(whole), len(texts), sum(len(text.encode()) for text in texts), words))
    return found


def _is_drawn(identifier: str, share: float) -> bool:
    digest = hashlib.blake2b(identifier.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


@lru_cache(maxsize=1)
def _encoder(directory: Path, fast: bool) -> Encoder:
    return Encoder(load_tokenizer(directory), fast)
