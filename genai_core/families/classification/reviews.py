"""The stage reviews: labelled reviews as token ids of one length."""

import json
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from genai_core.config.data import CleanConfig
from genai_core.context import Context, Result
from genai_core.data.chat import END_OF_TEXT, plain, token_id
from genai_core.data.clean.decontaminate import shares_runs
from genai_core.data.clean.normalize import normalize
from genai_core.data.shards.tables import read_table
from genai_core.data.tokens.batches import pad
from genai_core.data.tokens.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from genai_core.errors import InputError
from genai_core.families.classification.config import ReviewsConfig
from genai_core.families.images.digits import SPLITS
from genai_core.families.labels import LABELS


class Reviews(NamedTuple):
    """N reviews, padded on the right to T tokens."""

    ids: Tensor
    """Token ids (N, T), int64."""
    attention_mask: Tensor
    """Attention mask (N, T): False on padding."""
    labels: Tensor
    """Labels (N,): 0 negative, 1 positive."""
    texts: list[str]

    def batch(self, rows: Tensor | slice, device: torch.device) -> dict[str, Tensor]:
        """Ids, attention mask and labels of some reviews, padded to the longest of them."""
        longest = int(self.attention_mask[rows].sum(1).max())
        return {"ids": self.ids[rows, :longest].to(device),
                "attention_mask": self.attention_mask[rows, :longest].to(device),
                "labels": self.labels[rows].to(device)}


def run(config: ReviewsConfig, *, collected: Path, out_dir: Path, context: Context) -> Result:
    """Write the tokenizer and `SPLIT.parquet` with text and label.

    Training reviews that share a long run of words with a held-out one are left out and counted. Raises InputError when
    a split has no labelled review of the source.
    """
    reporter = context.reporter
    metrics: dict[str, float] = {}
    by_split = {split: _labelled(collected, split, config) for split in SPLITS}
    held_out = [text for split in SPLITS if split != "train" for text, _ in by_split[split]]
    chosen = len(by_split["train"])
    shared = shares_runs([text for text, _ in by_split["train"]], held_out, CleanConfig().decontamination_ngram)
    by_split["train"] = [review for review, leaks in zip(by_split["train"], shared, strict=True) if not leaks]
    for split, labelled in by_split.items():
        if not labelled:
            raise InputError(f"no labelled review of {config.source} in the split {split}")
        texts, labels = zip(*labelled, strict=True)
        table = pa.table({"text": texts, "label": pa.array(labels, pa.int8())})
        pq.write_table(table, out_dir / f"{split}.parquet", compression="zstd")
        metrics[f"{split}_reviews"] = len(labelled)
    metrics["train_shared_with_held_out"] = chosen - len(by_split["train"])
    train_texts = [text for text, _ in by_split["train"]]
    save_tokenizer(train_tokenizer(train_texts, config.vocab_size), out_dir)
    (out_dir / "reviews.json").write_text(json.dumps({"text_tokens": config.text_tokens}) + "\n", encoding="utf-8")
    reporter.note(", ".join(f"{name} {count:,.0f}" for name, count in metrics.items()))
    return Result(metrics)


def _labelled(collected: Path, split: str, config: ReviewsConfig) -> list[tuple[str, int]]:
    """Text and label of the reviews of a split, at even distances where there are more than the config takes."""
    rows = [row for row in read_table(collected, "documents", split=split, source=config.source)
            if row["label"] is not None]
    most = config.train_reviews if split == "train" else config.held_out_reviews
    if most and len(rows) > most:
        rows = [rows[number * len(rows) // most] for number in range(most)]
    return [(plain(normalize(row["text"])), LABELS.index(row["label"])) for row in rows]


def load_reviews(directory: Path, split: str) -> Reviews:
    """The reviews of a split. Raises InputError, naming the file, when they cannot be read."""
    try:
        table = pq.read_table(directory / f"{split}.parquet")
        length = json.loads((directory / "reviews.json").read_text(encoding="utf-8"))["text_tokens"]
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise InputError(f"{directory / split}.parquet: not readable reviews ({error})") from None
    texts = table["text"].to_pylist()
    ids, attention_mask = encode_reviews(directory, texts, length)
    return Reviews(ids, attention_mask, torch.tensor(table["label"].to_pylist()), texts)


def encode_reviews(directory: Path, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (N, `length`) of texts; of a longer text the beginning and the end are kept, where people
    say what they think."""
    tokenizer = load_tokenizer(directory)
    pad_id = token_id(tokenizer, END_OF_TEXT)
    rows = []
    for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        ids = encoding.ids or [pad_id]
        if len(ids) > length:
            ids = ids[:length // 2] + ids[-(length - length // 2):]
        rows.append(ids)
    return pad(rows, pad_id, "right", length)
