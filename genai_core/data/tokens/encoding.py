"""What tokenizing does to one shard: count it, draw a sample of its training text, write its ids."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genai_core.data.chat import plain
from genai_core.data.shards.files import file_digest, source_of
from genai_core.data.shards.splits import is_drawn
from genai_core.data.shards.tables import MESSAGE_COLUMNS, TEXT_COLUMNS, texts_of
from genai_core.data.tokens.token_files import dtype_of
from genai_core.data.tokens.tokenizer import TOKENIZER_FILES, Encoder, load_tokenizer

SHARDS = "train.shards.json"


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
    start: str = ""
    """Token that begins every document; empty for a model that reads none."""


@dataclass
class Counted:
    """What a shard holds."""

    documents: Counter[str]
    """Number of rows by split."""
    train_characters: int
    digest: str
    """SHA-256 of its file."""


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
    shard: str
    """Digest of the shard."""
    copied: bool = False
    """Whether an earlier run encoded it."""


@dataclass(frozen=True)
class Taken:
    """The training part of a shard in the token files of an earlier run."""

    directory: Path
    part: str
    first_document: int
    """Number of documents before it in the file `train`, and of tokens."""
    first_token: int
    tokens: int
    documents: int
    utf8_bytes: int


@dataclass(frozen=True)
class Shard:
    """A shard to encode."""

    path: Path
    digest: str
    taken: Taken | None
    """Its training part, where that was encoded before with the same tokenizer."""


def count_shard(path: Path) -> Counted:
    """Rows by split, characters of training text, and the digest of the file."""
    table = pq.read_table(path)
    splits = Counter(table["split"].to_pylist())
    train = table.filter(pc.equal(table["split"], "train"))
    if set(train.column_names) & {*TEXT_COLUMNS, *MESSAGE_COLUMNS} == {"text"}:
        characters = pc.sum(pc.utf8_length(train["text"])).as_py() or 0
    else:
        characters = sum(len(text) for row in train.to_pylist() for text in texts_of(row))
    return Counted(splits, characters, file_digest(path))


def sample_shard(path: Path, share: float) -> list[str]:
    """Training text of a shard: of all its rows the given share, chosen by the hash of their ids."""
    table = pq.read_table(path)
    drawn = [split == "train" and is_drawn(identifier, share) for split, identifier
             in zip(table["split"].to_pylist(), table["id"].to_pylist(), strict=True)]
    return [plain(text) for row in table.filter(pa.array(drawn, pa.bool_())).to_pylist() for text in texts_of(row)]


def encode_shard(shard: Shard, encoding: Encoding) -> list[Encoded]:
    """Write the ids of a shard's documents, those of each split to a part of its own.

    Of a shard that an earlier run encoded with the same tokenizer the training part is copied, held-out ones, which are
    small, are encoded again.
    """
    path = shard.path
    table = pq.read_table(path, columns=["split", "text", "raw_words"])
    splits = np.array(table["split"].to_pylist())
    found = []
    for split in sorted(set(splits.tolist())):
        part = f"{split}-{path.stem}"
        if split == "train" and shard.taken:
            found.append(_copied(shard.taken, part, encoding, shard.digest))
            continue
        rows = table.filter(pa.array(splits == split))
        encoder = _encoder(encoding.out_dir, encoding.fast)
        texts = [encoder.without_specials(text) for text in rows["text"].to_pylist()]
        ids, lengths = encoder([encoding.start + text for text in texts])
        ends = lengths.cumsum()
        whole = np.insert(ids, ends, encoding.end).astype(dtype_of(encoding.vocab_size))
        whole.tofile((encoding.out_dir if split == "train" else encoding.scratch) / f"{part}.bin")
        starts = np.concatenate([[0], ends[:-1]]) + np.arange(len(lengths))
        starts.astype("<i8").tofile(encoding.scratch / f"{part}.starts")
        words = [] if split == "train" else [count or 0 for count in rows["raw_words"].to_pylist()]
        name = "train" if split == "train" else f"{split}.{source_of(path)}"
        size = sum(len(text.encode()) for text in texts)
        found.append(Encoded(name, part, len(whole), len(texts), size, words, shard.digest))
    return found


def _copied(taken: Taken, part: str, encoding: Encoding, digest: str) -> Encoded:
    shutil.copyfile(taken.directory / f"{taken.part}.bin", encoding.out_dir / f"{part}.bin")
    starts = np.fromfile(taken.directory / "train.starts", "<i8", count=taken.documents,
                         offset=8 * taken.first_document)
    (starts - taken.first_token).tofile(encoding.scratch / f"{part}.starts")
    return Encoded("train", part, taken.tokens, taken.documents, taken.utf8_bytes, [], digest, copied=True)


def write_shards(parts: list[Encoded], out_dir: Path) -> None:
    """Write `train.shards.json`, by which a later run knows what was encoded of which shard, in the parts' order."""
    shards = [{"part": part.part, "shard": part.shard, "tokens": part.tokens, "documents": part.documents,
               "utf8_bytes": part.utf8_bytes} for part in parts]
    (out_dir / SHARDS).write_text(json.dumps(shards) + "\n", encoding="utf-8")


def encoded_before(earlier: Iterable[Path], out_dir: Path) -> dict[str, Taken]:
    """The training parts of earlier artifacts whose tokenizer is that of `out_dir`, by the digests of their shards."""
    taken: dict[str, Taken] = {}
    name = TOKENIZER_FILES[0]
    tokenizer = (out_dir / name).read_bytes()
    for directory in earlier:
        if (directory / name).read_bytes() != tokenizer:
            continue
        documents = tokens = 0
        for entry in json.loads((directory / SHARDS).read_text(encoding="utf-8")):
            sizes = {name: entry[name] for name in ("tokens", "documents", "utf8_bytes")}
            taken.setdefault(entry["shard"], Taken(directory, entry["part"], documents, tokens, **sizes))
            documents, tokens = documents + entry["documents"], tokens + entry["tokens"]
    return taken


@lru_cache(maxsize=1)
def _encoder(directory: Path, fast: bool) -> Encoder:
    return Encoder(load_tokenizer(directory), fast)
