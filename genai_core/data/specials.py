"""Special tokens in what other people wrote, for tokenizers from outside.

Those of this project's own tokenizer are three strings (`plain` in `chat.py`). One from outside may have thousands, and
a normalizer that makes one of them out of other characters, so it is asked itself.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, models

_BETWEEN = "\0"

class SpecialTokens:
    """Finds what a tokenizer would read as special tokens, or as one of some `others`."""

    def __init__(self, tokenizer: Tokenizer, others: Iterable[str] = ()):
        others = set(others)
        sought = [AddedToken(token.content, special=True, normalized=token.normalized, single_word=token.single_word)
                  for token in tokenizer.get_added_tokens_decoder().values()
                  if token.special or token.content in others]
        # with the same normalizer and a vocabulary of one word, whatever lies between them is one token
        self._finder = Tokenizer(models.WordLevel({_BETWEEN: 0}, unk_token=_BETWEEN))
        if tokenizer.normalizer is not None and any(token.normalized for token in sought):
            self._finder.normalizer = tokenizer.normalizer
        self._finder.add_special_tokens(sought)

    def taken_out(self, text: str) -> str:
        """The text without them."""
        while spans := [(start, end) for start, end in self._found(text) if end > start]:
            for start, end in reversed(spans):      # what is left may spell another
                text = text[:start] + text[end:]
        return text

    def _found(self, text: str) -> list[tuple[int, int]]:
        read = self._finder.encode(text, add_special_tokens=False)
        return [span for number, span in zip(read.ids, read.offsets, strict=True) if number]
