"""Where a model of code spends its bits: on keywords, names, strings, layout and so on."""

import io
import keyword
import math
import tokenize
from collections import Counter, defaultdict

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.models.language_model import LanguageModel

LAYOUT = "layout"
_NAMES = {tokenize.STRING: "string", tokenize.NUMBER: "number", tokenize.OP: "operator", tokenize.COMMENT: "comment"}


def kinds_of_characters(text: str) -> list[str]:
    """The kind of each character of a module: keyword, name, string, number, operator, comment, or layout.

    Raises SyntaxError for text that is no Python.
    """
    kinds = [LAYOUT] * len(text)
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = _NAMES.get(token.type, "")
            if token.type == tokenize.NAME:
                kind = "keyword" if keyword.iskeyword(token.string) else "name"
            if kind:
                first, last = starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1]
                kinds[first:last] = [kind] * (last - first)
    except tokenize.TokenError as error:
        raise SyntaxError(str(error)) from None
    return kinds


@torch.no_grad()
def bits_by_kind(model: LanguageModel, tokenizer: Tokenizer, texts: list[str], limit: int, device: torch.device
                 ) -> dict[str, tuple[float, int]]:
    """Bits and characters of each kind, over about the first `limit` tokens; a token is of the kind of its first
    character that is not blank."""
    bits: dict[str, float] = defaultdict(float)
    characters: Counter[str] = Counter()
    scored, length = 0, model.context_length
    for text in texts:
        if scored >= limit:
            break
        kinds = kinds_of_characters(text)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids = torch.tensor([token_id(tokenizer, END_OF_TEXT), *encoding.ids])
        nats: list[float] = []
        for start in range(0, len(ids) - 1, length):
            row = ids[start:start + length + 1].to(device)
            logits = model(row[None, :-1]).float()
            nats += F.cross_entropy(logits[0], row[1:], reduction="none").tolist()
        for (first, last), loss in zip(encoding.offsets, nats, strict=True):
            place = next((index for index in range(first, last) if not text[index].isspace()), first)
            bits[kinds[place]] += loss / math.log(2)
            characters[kinds[place]] += last - first
        scored += len(nats)
    return {kind: (bits[kind], characters[kind]) for kind in sorted(bits)}
