"""The rows that a chat model is fine-tuned on: packed chats, and plain text so that the model does not forget it."""

from pathlib import Path

from tokenizers import Tokenizer

from genai_core.config.tasks import Mixture
from genai_core.config.training import InstructConfig
from genai_core.context import Reporter
from genai_core.data.chat import END_OF_TEXT, document_start, encode_chat, token_id
from genai_core.data.instruction.mixture import build_mixture
from genai_core.data.instruction.packing import PackedRows, pack
from genai_core.data.tokens.batches import random_windows
from genai_core.data.tokens.token_files import read_tokens
from genai_core.errors import InputError

VALIDATION_CHATS = 1000
"""Most chats that the validation loss is measured on."""


def training_rows(config: InstructConfig, mixture: Mixture, tokenizer: Tokenizer, cleaned: Path, tokens: Path,
                  reporter: Reporter) -> PackedRows:
    """Chats of the training mixture from `cleaned`, and text from `tokens` for `text_fraction` of the rows, or as many
    as there are, and of the loss. Raises InputError when no chat has an answer that fits into a row."""
    chats = _packed(config, mixture, tokenizer, cleaned, "train", reporter)
    if not len(chats.ids):
        raise InputError(f"instruct.context_length: none of {chats.chats_left_out:,} chats has an answer within "
                         f"{config.context_length} tokens of its end; lengthen the context or shorten the chats")
    if not config.text_fraction:
        return chats
    wanted = round(len(chats.ids) * config.text_fraction / (1 - config.text_fraction))
    text = random_windows(read_tokens(tokens, "train"), wanted, config.context_length, config.seed)
    if len(text):
        reporter.note(f"{len(text) / (len(chats.ids) + len(text)):.1%} of the rows are plain text, with "
                      f"{config.text_fraction:.0%} of the loss")
    else:
        why = f"the training text has no {config.context_length + 1} tokens, which a row takes" if wanted \
            else f"{len(chats.ids)} rows of chats are too few for it"
        reporter.note(f"instruct.text_fraction: {config.text_fraction:.0%} is to be plain text, and none is: {why}")
    return chats.with_text(text, config.text_fraction)


def validation_rows(config: InstructConfig, mixture: Mixture, tokenizer: Tokenizer, cleaned: Path, reporter: Reporter
                    ) -> PackedRows:
    """Chats of the validation mixture."""
    return _packed(config, mixture, tokenizer, cleaned, "validation", reporter)


def calibration_rows(config: InstructConfig, mixture: Mixture, tokenizer: Tokenizer, cleaned: Path, tokens: Path,
                     count: int) -> PackedRows:
    """The first chats of the training mixture that have `count` tokens together, or all; of a mixture of nothing, as
    much training text."""
    end, chats, total = token_id(tokenizer, END_OF_TEXT), [], 0
    for chat in build_mixture(cleaned, mixture, config.seed):
        if total >= count:
            break
        chats.append(encode_chat(tokenizer, chat.messages))
        total += len(chats[-1][0])
    if not mixture.lessons:
        length = config.context_length
        text = random_windows(read_tokens(tokens, "train"), count // length, length, config.seed)
        chats = [(row.tolist(), [True] * (length + 1)) for row in text]
    return pack(chats, config.context_length, end, start=document_start(tokenizer))


def last_answer(completion_mask: list[bool]) -> list[bool]:
    """A completion mask of the last answer alone: of its last tokens in a row that are True."""
    end = len(completion_mask) - completion_mask[::-1].index(True) if any(completion_mask) else 0
    start = end
    while start and completion_mask[start - 1]:
        start -= 1
    return [start <= place < end for place in range(len(completion_mask))]


def _packed(config: InstructConfig, mixture: Mixture, tokenizer: Tokenizer, cleaned: Path, split: str,
            reporter: Reporter) -> PackedRows:
    chats = build_mixture(cleaned, mixture, config.seed, split)
    if split != "train":
        chats = chats[:VALIDATION_CHATS]
    encoded = [encode_chat(tokenizer, chat.messages) for chat in chats]
    if config.turns == "last":
        encoded = [(ids, last_answer(completion_mask)) for ids, completion_mask in encoded]
    packed = pack(encoded, config.context_length, token_id(tokenizer, END_OF_TEXT), [chat.power for chat in chats],
                  document_start(tokenizer))
    if packed.chats_cut or packed.chats_left_out:
        reporter.note(f"{split}: of {len(chats):,} chats {packed.chats_cut:,} lost their beginning to fit "
                      f"{config.context_length} tokens, and {packed.chats_left_out:,} are left out, since nothing of "
                      "an answer fits")
    return packed
