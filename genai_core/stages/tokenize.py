"""The stage tokenize: the tokenizer is trained on training text alone, then every split becomes token files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer

from genai_core.config.data import TokenizeConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.chat import END_OF_TEXT, plain, token_id
from genai_core.data.tables import Rows, read_table
from genai_core.data.token_files import write_tokens
from genai_core.data.tokenizer import encode_batches, save_tokenizer, train_tokenizer
from genai_core.errors import InputError

_TOLD = 1000


def run(config: TokenizeConfig, *, cleaned: Path, out_dir: Path, context: Context) -> Result:
    """Write the tokenizer, `train.bin`, and one `validation.SOURCE.bin` and `test.SOURCE.bin` for each source.

    Raises InputError when the vocabulary is larger than the text supports or no text is held out.
    """
    reporter = context.reporter
    documents = read_table(cleaned, "documents")
    train = [plain(row["text"]) for row in documents if row["split"] == "train"]
    held_out = {(row["split"], _family(row)) for row in documents if row["split"] != "train"}
    if not any(split == "validation" for split, _ in held_out):
        raise InputError("no document is held out for validation; raise collect.validation_fraction or add documents")
    total = len(documents)
    reporter.progress(0, total, "documents")
    tokenizer = train_tokenizer(_tokenizer_text(train, cleaned, config), config.vocab_size)
    save_tokenizer(tokenizer, out_dir)
    reporter.note(f"vocabulary of {tokenizer.get_vocab_size():,} entries trained; encoding {total:,} documents")
    end = token_id(tokenizer, END_OF_TEXT)
    size = sum(len(text.encode()) for text in train)
    vocab_size = tokenizer.get_vocab_size()
    encoded = _told(encode_batches(tokenizer, train), total, reporter)
    tokens = write_tokens(out_dir, "train", encoded, end, vocab_size, size)
    metrics = {"vocab_size": vocab_size, "train_tokens": tokens, "train_documents": len(train),
               "bytes_per_token": size / (tokens - len(train))}
    for split, source in sorted(held_out):
        rows = [row for row in documents if (row["split"], _family(row)) == (split, source)]
        metrics |= _write_held_out(tokenizer, rows, f"{split}.{source}", end, out_dir)
    reporter.progress(total, total, "documents")
    return Result(metrics)


def _tokenizer_text(train: list[str], cleaned: Path, config: TokenizeConfig) -> Iterator[str]:
    """Training text of the documents and of the extra tables, cut to `max_characters`."""
    texts = [train]
    for table in config.extra_sources:
        rows = read_table(cleaned, table, split="train")
        texts.append([plain(text) for row in rows for text in _texts(row)])
    left = config.max_characters or float("inf")
    share = left / len(texts)
    for group in texts:
        budget = share
        for text in group:
            if budget <= 0:
                break
            yield text
            budget -= len(text)


def _family(row: dict) -> str:
    """The source as the preset names it, without the part of it."""
    return row["source"].split("/")[0]


def _texts(row: dict) -> Iterable[str]:
    if "messages" in row:
        return [message["content"] for message in row["messages"]]
    return [row[column] for column in ("text", "source_text", "target_text") if column in row]


def _told(documents: Iterator[list[int]], total: int, reporter: Reporter) -> Iterator[list[int]]:
    for done, ids in enumerate(documents):
        if done % _TOLD == 0:
            reporter.progress(done, total, "documents")
        yield ids


def _write_held_out(tokenizer: Tokenizer, rows: Rows, name: str, end: int, out_dir: Path) -> dict[str, float]:
    texts = [plain(row["text"]) for row in rows]
    size = sum(len(text.encode()) for text in texts)
    tokens = write_tokens(out_dir, name, encode_batches(tokenizer, texts), end, tokenizer.get_vocab_size(), size,
                          [row["raw_words"] or 0 for row in rows])
    return {f"{name}/tokens": tokens, f"{name}/bytes_per_token": size / (tokens - len(rows))}
