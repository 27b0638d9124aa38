"""Which records are held out: decided by a hash of the text, so that equal texts always fall on the same side."""

import hashlib
import re

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


def fingerprint(text: str) -> str:
    """The text's letters and digits in lower case: equal for texts that differ in punctuation or spacing only."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())


def split_of(text: str, validation_fraction: float, test_fraction: float) -> str:
    """`train`, `validation` or `test`, by the SHA-256 of the text's fingerprint read as a number in [0, 1)."""
    digest = hashlib.sha256(fingerprint(text).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"
