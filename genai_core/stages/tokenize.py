"""The stage tokenize: the tokenizer is trained on training text alone, or is that of a base from outside; then every
split becomes token files.

Three passes over the shards: what there is; the sample that the tokenizer is trained on; the ids. Each writes or hands
back what is of its shard, in as many processes as there are.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from genai_core.config.data import TokenizeConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.chat import END_OF_TEXT, document_start, plain, token_id
from genai_core.data.shards.files import iterate_batches, shards_of, source_of
from genai_core.data.shards.tables import SCHEMAS
from genai_core.data.tokens.encoding import (
    Counted,
    Encoded,
    Encoding,
    Shard,
    count_shard,
    encode_shard,
    encoded_before,
    sample_shard,
    write_shards,
)
from genai_core.data.tokens.token_files import write_header
from genai_core.data.tokens.tokenizer import (
    TOKENIZER_FILES,
    encodes_fast,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from genai_core.errors import InputError

_COMPARED = 1000
"""Number of documents on which the two encoders must agree."""


def run(config: TokenizeConfig, *, cleaned: Path, out_dir: Path, context: Context, adopted: Path | None = None
        ) -> Result:
    """Write the tokenizer, `train.*`, and `validation.SOURCE.*` and `test.SOURCE.*` for each source. The tokenizer is
    that of the model directory `adopted` where there is one.

    Raises InputError when no document is there to train on or held out.
    """
    reporter = context.reporter
    documents = shards_of(cleaned, "documents")
    extra = [path for table in config.extra_sources for path in shards_of(cleaned, table)]
    counts = list(context.map(count_shard, [*documents, *extra]))
    total = _check(counts[:len(documents)])
    reporter.progress(0, total, "documents")
    if adopted:
        for name in TOKENIZER_FILES:
            shutil.copyfile(adopted / name, out_dir / name)
        tokenizer = load_tokenizer(out_dir)
    else:
        known = [(path, count.train_characters) for path, count in zip([*documents, *extra], counts, strict=True)
                 if not config.sources or source_of(path) in config.sources]
        tokenizer = _train(config, known, context)
        save_tokenizer(tokenizer, out_dir)
    reporter.note(f"vocabulary of {tokenizer.get_vocab_size():,} entries {'of the base' if adopted else 'trained'}; "
                  f"encoding {total:,} documents")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=out_dir) as scratch:
        start = "".join(tokenizer.id_to_token(number) or "" for number in document_start(tokenizer))
        encoding = Encoding(out_dir, Path(scratch), token_id(tokenizer, END_OF_TEXT), tokenizer.get_vocab_size(),
                            encodes_fast(tokenizer, [start + text for text in _first_texts(documents)]), start)
        taken = encoded_before(context.earlier, out_dir)
        shards = [Shard(path, count.digest, taken.get(count.digest))
                  for path, count in zip(documents, counts, strict=False)]      # the counts of `extra` follow
        encoded = _told(context.map(partial(encode_shard, encoding=encoding), shards), total, reporter)
        parts = list(chain.from_iterable(encoded))
        metrics = _write_whole(parts, encoding)
    training = [part for part in parts if part.name == "train"]
    write_shards(training, out_dir)
    if copied := sum(part.copied for part in training):
        reporter.note(f"{copied:,} of {len(training):,} training shards were encoded before and are taken over")
    return Result({"vocab_size": tokenizer.get_vocab_size()} | metrics,
                  {"encode_seconds": time.perf_counter() - began})


def _check(counts: list[Counted]) -> int:
    """Number of documents, if there are some to train on and some held out."""
    splits = [split for count in counts for split in count.documents]
    if "train" not in splits:
        raise InputError("no document to train on; the base model needs a source of documents")
    if "validation" not in splits:
        raise InputError("no document is held out for validation; raise collect.validation_fraction or add documents")
    return sum(sum(count.documents.values()) for count in counts)


def _train(config: TokenizeConfig, shards: list[tuple[Path, int]], context: Context) -> Tokenizer:
    """Train on all training text of the shards, given with their characters of it, or on as large a part of it as
    `max_characters` allows."""
    characters = sum(size for _, size in shards)
    if not characters:
        raise InputError(f"tokenize.sources: {', '.join(config.sources)} have no training text; name others, or none "
                         "for all")
    share = 1.0
    if config.max_characters and characters > config.max_characters:
        share = config.max_characters / characters
        context.reporter.note(f"training the tokenizer on {share:.1%} of {characters:,} characters")
    texts = context.map(partial(sample_shard, share=share), [path for path, _ in shards])
    return train_tokenizer(chain.from_iterable(texts), config.vocab_size)


def _first_texts(documents: list[Path]) -> list[str]:
    batch = next(iterate_batches(documents, SCHEMAS["documents"], _COMPARED))
    return [plain(text) for text in batch["text"].to_pylist()]


def _told(answers: Iterator[list[Encoded]], total: int, reporter: Reporter) -> Iterator[list[Encoded]]:
    done = 0
    for answer in answers:
        done += sum(part.documents for part in answer)
        reporter.progress(done, total, "documents")
        yield answer


def _write_whole(parts: list[Encoded], encoding: Encoding) -> dict[str, float]:
    """The headers and the documents' first tokens of every file; of held-out files also the ids, whose parts are small.
    """
    metrics: dict[str, float] = {}
    for name in sorted({part.name for part in parts}, key=lambda name: (name != "train", name)):
        own = [part for part in parts if part.name == name]
        tokens, documents, size = (sum(getattr(part, field) for part in own)
                                   for field in ("tokens", "documents", "utf8_bytes"))
        with (encoding.out_dir / f"{name}.starts").open("wb") as starts:
            before = 0
            for part in own:
                starts.write((np.fromfile(encoding.scratch / f"{part.part}.starts", "<i8") + before).tobytes())
                before += part.tokens
        words = [count for part in own for count in part.raw_words]
        named = {part.part: part.tokens for part in own} if name == "train" else None
        write_header(encoding.out_dir, name, tokens, documents, size, encoding.vocab_size, words, named)
        if name == "train":
            metrics |= {"train_tokens": tokens, "train_documents": documents,
                        "bytes_per_token": size / (tokens - documents)}
            continue
        with (encoding.out_dir / f"{name}.bin").open("wb") as whole:
            for part in own:
                with (encoding.scratch / f"{part.part}.bin").open("rb") as stream:
                    shutil.copyfileobj(stream, whole)
        metrics |= {f"{name}/tokens": tokens, f"{name}/bytes_per_token": size / (tokens - documents)}
    return metrics
