"""Which records are held out: decided by a hash of the text, so that equal texts always fall on the same side."""

import hashlib
import re

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_NOT_ALPHANUMERIC_ASCII = bytes(code for code in range(128) if not chr(code).isalnum())


def fingerprint(text: str) -> str:
    """The text's letters and digits in lower case: equal for texts that differ in punctuation or spacing only."""
    if text.isascii():      # the same, thirty times as fast
        return text.lower().encode("ascii").translate(None, _NOT_ALPHANUMERIC_ASCII).decode("ascii")
    return _NOT_ALPHANUMERIC.sub("", text.lower())


def position_of(text: str) -> float:
    """A number in [0, 1): the SHA-256 of the text's fingerprint."""
    digest = hashlib.sha256(fingerprint(text).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(text: str, validation_fraction: float, test_fraction: float) -> str:
    """`train`, `validation` or `test`, by the text's position."""
    return split_at(position_of(text), validation_fraction, test_fraction)


def split_at(position: float, validation_fraction: float, test_fraction: float) -> str:
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"


def is_drawn(identifier: str, share: float, person: bytes = b"") -> bool:
    """Whether a record is in an even sample of the given share, by the hash of its id; draws for each `person`, of 16
    bytes at most, are independent of the others."""
    digest = hashlib.blake2b(identifier.encode(), digest_size=8, person=person).digest()
    return int.from_bytes(digest, "little") < share * 2**64
