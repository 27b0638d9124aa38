"""The parameter file of the portable export, `model.bin`: tokenizer, sizes and weights, all little-endian.

    bytes     what
    8         "GENAI-1\\n"
    4 × 12    int32: vocabulary V, hidden size C, layers, query heads, key-value heads, head size D, feed-forward size,
              context, id of the end of a turn, id of the end of a text, merges, ranges of characters
    4 × 2     float32: base of the rotary angles, epsilon of the norms
    …         V tokens: int32 size (negative for a special token), then its bytes
    …         merges, the most frequent first: int32 left id, right id, id of the two together
    …         ranges of characters, in order: int32 first, last, kind (1 letter, 2 number, 3 white space)
    0 to 63   zeros up to a multiple of 64
    …         float32 weights: embedding (V, C); of each layer norm (C), query, key, value, their norms (D) of query and
              key, output, norm (C), gate, up, down; the last norm (C). A matrix (N, K) maps K inputs to N outputs.
"""

import json
import struct
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, SPECIAL_TOKENS, TURN_END, token_id
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.models.transformer import Transformer

MAGIC = b"GENAI-1\n"
ALIGNMENT = 64
LETTER, NUMBER, SPACE = 1, 2, 3
PARTS = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_norm",
         "self_attn.k_norm", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
         "mlp.down_proj")


def write_parameters(model: Transformer, tokenizer_dir: Path, path: Path) -> None:
    """Write the parameter file of a model, whole or not at all."""
    tokenizer, shape = load_tokenizer(tokenizer_dir), model.config
    merges, ranges = _merges(tokenizer), list(character_ranges())
    scratch = path.with_name(f"{path.name}.part")
    with scratch.open("wb") as file:
        file.write(MAGIC)
        file.write(struct.pack("<12i2f", shape.vocab_size, shape.hidden_size, shape.num_hidden_layers,
                               shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim,
                               shape.intermediate_size, shape.max_position_embeddings, token_id(tokenizer, TURN_END),
                               token_id(tokenizer, END_OF_TEXT), len(merges), len(ranges), shape.rope_theta,
                               shape.rms_norm_eps))
        for token, special in _tokens(tokenizer, shape.vocab_size):
            file.write(struct.pack("<i", -len(token) if special else len(token)) + token)
        for numbers in (merges, ranges):
            file.write(np.array(numbers, "<i4").tobytes())
        file.write(bytes(-file.tell() % ALIGNMENT))
        weights = dict(model.named_parameters())
        names = ["model.embed_tokens", *(f"model.layers.{layer}.{part}" for layer in range(shape.num_hidden_layers)
                                         for part in PARTS), "model.norm"]
        for name in names:
            file.write(weights[f"{name}.weight"].detach().float().cpu().numpy().astype("<f4").tobytes())
    scratch.replace(path)


def character_ranges() -> Iterator[tuple[int, int, int]]:
    """First and last code point and kind of each run of letters, numbers or white space."""
    begun, kind_before = 0, 0
    for code in range(sys.maxunicode + 2):
        kind = _kind(chr(code)) if code <= sys.maxunicode else 0
        if kind != kind_before:
            if kind_before:
                yield begun, code - 1, kind_before
            begun, kind_before = code, kind


def _kind(character: str) -> int:
    """Kind of a character, 0 for any other; white space as Unicode has it, without the separators U+001C to U+001F."""
    category = unicodedata.category(character)
    if category[0] == "L":
        return LETTER
    if category[0] == "N":
        return NUMBER
    return SPACE if character.isspace() and not "\x1c" <= character <= "\x1f" else 0


def _tokens(tokenizer: Tokenizer, size: int) -> Iterator[tuple[bytes, bool]]:
    """The bytes of each token, and whether it is a special one; empty for ids without a token."""
    of_character = {character: byte for byte, character in byte_characters().items()}
    for number in range(size):
        token = tokenizer.id_to_token(number) or ""
        if token in SPECIAL_TOKENS:
            yield token.encode(), True
        else:
            yield bytes(of_character[character] for character in token), False


def byte_characters() -> dict[int, str]:
    """The character that byte-level BPE writes each byte as (Radford et al. 2019): itself where it can be printed, else
    the next one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _merges(tokenizer: Tokenizer) -> list[tuple[int, int, int]]:
    ids = tokenizer.get_vocab()
    pairs = (merge.split(" ") if isinstance(merge, str) else merge
             for merge in json.loads(tokenizer.to_str())["model"]["merges"])
    return [(ids[left], ids[right], ids[left + right]) for left, right in pairs]
