"""Masking of e-mail addresses, phone numbers and IP addresses.

Placeholders instead of deletion keep the sentence whole. The patterns are narrow on purpose: a masked year or score
would cost more than it protects.
"""

import re

_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_IP = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
_PHONE = re.compile(r"(?<![\d-])(?:\+\d{1,3}[ .-]\d{1,4}(?:[ .-]\d{2,4}){2,4}"
                    r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\d-])")


# what a text with such data must hold, of any script, and of ASCII after a translation that shows digits alone
_IP_LIKE = re.compile(r"\d\.\d{1,3}\.\d{1,3}\.\d")
_PHONE_LIKE = re.compile(r"\d{3}[ .-]\d{4}|\+\d")
_IP_SHOWN = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
_SHOW_DIGITS = bytes.maketrans(b"123456789 .-", b"000000000_._")


def mask_personal_data(text: str) -> tuple[str, int]:
    """The text with `<email>`, `<ip>` and `<phone>` in place of such data, and how many were replaced."""
    total = 0
    if "@" in text:
        text, total = _EMAIL.subn("<email>", text)
    ip_like, phone_like = _numbers_like(text)
    if ip_like:
        text, count = _IP.subn("<ip>", text)
        total += count
    if phone_like:
        text, count = _PHONE.subn("<phone>", text)
        total += count
    return text, total


def _numbers_like(text: str) -> tuple[bool, bool]:
    """Whether a text may hold an IP address, and whether a phone number; found in a fraction of the time."""
    if not text.isascii():
        return _IP_LIKE.search(text) is not None, _PHONE_LIKE.search(text) is not None
    shown = text.encode("ascii").translate(_SHOW_DIGITS)
    ip_like = b"0.0" in shown and _IP_SHOWN.search(shown) is not None
    return ip_like, b"000_0000" in shown or b"000.0000" in shown or b"+0" in shown
