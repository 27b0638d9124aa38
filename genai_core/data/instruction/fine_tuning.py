"""The rows that a chat model is fine-tuned on: packed chats, and plain text so that the model does not forget it."""

from pathlib import Path

from tokenizers import Tokenizer

from genai_core.config.tasks import Mixture
from genai_core.config.training import InstructConfig
from genai_core.context import Reporter
from genai_core.data.chat import END_OF_TEXT, encode_chat, token_id
from genai_core.data.instruction.mixture import build_mixture
from genai_core.data.instruction.packing import PackedRows, pack
from genai_core.data.tokens.batches import random_windows
from genai_core.data.tokens.token_files import read_tokens
from genai_core.errors import InputError

VALIDATION_CHATS = 1000
"""Most chats that the validation loss is measured on."""


def training_rows(config: InstructConfig, mixture: Mixture, tokenizer: Tokenizer, cleaned: Path, tokens: Path,
                  reporter: Reporter) -> PackedRows:
    """Chats of the training mixture from `cleaned`, and text from `tokens` for `text_fraction` of the rows and of the
    loss. Raises InputError when no chat has an answer that fits into a row."""
    chats = _packed(config, mixture, tokenizer, cleaned, "train", reporter)
    if not len(chats.ids):
        raise InputError(f"instruct.context_length: none of {chats.chats_left_out:,} chats has an answer within "
                         f"{config.context_length} tokens of its end; lengthen the context or shorten the chats")
    if not config.text_fraction:
        return chats
    wanted = round(len(chats.ids) * config.text_fraction / (1 - config.text_fraction))
    text = random_windows(read_tokens(tokens, "train"), wanted, config.context_length, config.seed)
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
    return pack(chats, config.context_length, end)


def _packed(config: InstructConfig, mixture: Mixture, tokenizer: Tokenizer, cleaned: Path, split: str,
            reporter: Reporter) -> PackedRows:
    chats = build_mixture(cleaned, mixture, config.seed, split)
    if split != "train":
        chats = chats[:VALIDATION_CHATS]
    packed = pack([encode_chat(tokenizer, chat.messages) for chat in chats], config.context_length,
                  token_id(tokenizer, END_OF_TEXT), [chat.power for chat in chats])
    if packed.chats_cut or packed.chats_left_out:
        reporter.note(f"{split}: of {len(chats):,} chats {packed.chats_cut:,} lost their beginning to fit "
                      f"{config.context_length} tokens, and {packed.chats_left_out:,} are left out, since nothing of "
                      "an answer fits")
    return packed
