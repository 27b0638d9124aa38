"""The tokenizer and the chat template of a GGUF file: those of the model directory.

llama.cpp knows by name how text is cut before merges are looked for. A tokenizer that cuts it otherwise is left out of
the file, which llama.cpp then does not open: with another name it would answer, and read other tokens.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from genai_core.data.chat import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, adopted_format, document_start, token_id
from genai_core.data.chat_formats import without_generation
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.models.opened import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter, TokenType


class NotForLlamaCpp(InputError):
    """A model that llama.cpp does not read, or would read otherwise."""


PATTERNS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
              r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
              r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""The pattern that text is cut by, by the name that llama.cpp has for it."""
_WHOLE = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BYTE_LEVEL: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_WHOLE], "smollm": [{"type": "Digits", "individual_digits": True}, _WHOLE],
    **{name: [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
              {**_WHOLE, "use_regex": False}] for name, pattern in PATTERNS.items()}}
"""The steps before the merges of byte-level BPE, by the same names."""
_BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def require_tokenizer(tokenizer_dir: Path) -> None:
    """Raise NotForLlamaCpp for a tokenizer that llama.cpp would read text otherwise with."""
    content = read_json(tokenizer_dir / "tokenizer.json")
    if byte_level_name(content) is None and _prefixes_blank(content) is None:
        steps = [content["model"]["type"], *(each["type"] for part in ("normalizer", "pre_tokenizer")
                                             for each in _steps(content.get(part)))]
        raise NotForLlamaCpp(f"{tokenizer_dir / 'tokenizer.json'}: llama.cpp has no name for how this tokenizer cuts "
                             f"text ({', '.join(steps)}); export huggingface, which transformers reads")


def byte_level_name(content: dict[str, Any]) -> str | None:
    """What llama.cpp calls the steps of byte-level BPE; None for any other tokenizer."""
    steps = [{name: value for name, value in step.items() if name != "trim_offsets"}
             for step in _steps(content.get("pre_tokenizer"))]
    plain = content["model"]["type"] == "BPE" and all(step["type"] == "NFC" for step in _steps(content["normalizer"]))
    return next((name for name, known in BYTE_LEVEL.items() if steps == known), None) if plain else None


def _prefixes_blank(content: dict[str, Any]) -> bool | None:
    """Whether a tokenizer as SentencePiece's BPE puts a blank in front of a text; None for any other tokenizer."""
    model, before, cut = content["model"], _steps(content.get("normalizer")), _steps(content.get("pre_tokenizer"))
    if model["type"] != "BPE" or not model.get("byte_fallback"):
        return None
    if [step["type"] for step in cut] == ["Metaspace"] and cut[0]["replacement"] == "▁" and not before:
        return bool(cut[0]["prepend_scheme"] != "never")
    if before[-1:] != [_BLANKS] or any(step["type"] != "Split" or step["pattern"] != {"String": " "} for step in cut):
        return None      # after it there are no blanks to be split at
    first = before[:-1]
    return bool(first) if first in ([], [{"type": "Prepend", "prepend": "▁"}]) else None


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, which may be a sequence of them."""
    if part is None:
        return []
    nested = part.get("normalizers") or part.get("pretokenizers")
    return [step for each in nested for step in _steps(each)] if nested else [part]


def add_tokenizer(writer: "GGUFWriter", tokenizer_dir: Path, size: int) -> None:
    """Byte-level BPE is llama.cpp's `gpt2`, SentencePiece's its `llama`; `size` is the number of rows for tokens."""
    tokenizer = load_tokenizer(tokenizer_dir)
    content = json.loads(tokenizer.to_str())
    name, prefixed = byte_level_name(content), _prefixes_blank(content)
    if name is not None:
        _add_byte_level_tokenizer(writer, tokenizer, size, name)
    elif prefixed is not None:
        _add_sentence_pieces(writer, tokenizer, size, prefixed)
    else:
        return
    adopted, start = adopted_format(tokenizer), document_start(tokenizer)
    if adopted:
        writer.add_bos_token_id(start[0] if start else token_id(tokenizer, END_OF_TEXT))
    writer.add_eos_token_id(token_id(tokenizer, TURN_END))
    writer.add_eot_token_id(token_id(tokenizer, TURN_END))
    writer.add_pad_token_id(token_id(tokenizer, END_OF_TEXT))
    writer.add_add_bos_token(bool(start))
    file = tokenizer_dir / "tokenizer_config.json"
    template = str((read_json(file) if file.is_file() else {}).get("chat_template") or CHAT_TEMPLATE)
    writer.add_chat_template(without_generation(template))


def _add_byte_level_tokenizer(writer: "GGUFWriter", tokenizer: Tokenizer, size: int, pattern: str) -> None:
    """Byte-level BPE is llama.cpp's `gpt2`; `pattern` is what it calls the one that text is cut by first."""
    content = json.loads(tokenizer.to_str())["model"]
    tokens, types = _tokens(tokenizer, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pattern)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in content["merges"]])


def _add_sentence_pieces(writer: "GGUFWriter", tokenizer: Tokenizer, size: int, prefixed: bool) -> None:
    """Pieces in the order of their merges, which llama.cpp reads off their scores."""
    from gguf import TokenType

    tokens, types = _tokens(tokenizer, size)
    for number, token in enumerate(tokens):
        if token.startswith("<0x") and len(token) == 6:
            types[number] = TokenType.BYTE
        elif token == "<unk>":
            types[number] = TokenType.UNKNOWN
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(size)])
    writer.add_token_types(types)
    writer.add_add_space_prefix(prefixed)


def _tokens(tokenizer: Tokenizer, size: int) -> tuple[list[str], list["TokenType"]]:
    """The token and its type for each of the `size` rows; rows that no token has are named as padding."""
    from gguf import TokenType

    added = tokenizer.get_added_tokens_decoder()
    tokens, types = [f"[PAD{number}]" for number in range(size)], [TokenType.UNUSED] * size
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[number] = token
        types[number] = TokenType.NORMAL if number not in added else \
            TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED
    return tokens, types
