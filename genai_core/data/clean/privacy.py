"""Masking of e-mail addresses, phone numbers and IP addresses.

Placeholders instead of deletion keep the sentence whole. The patterns are narrow on purpose: a masked year or score
would cost more than it protects.
"""

import re

_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_IP = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")
_PHONE = re.compile(r"(?<![\d-])(?:\+\d{1,3}[ .-]\d{1,4}(?:[ .-]\d{2,4}){2,4}"
                    r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\d-])")


def mask_personal_data(text: str) -> tuple[str, int]:
    """The text with `<email>`, `<ip>` and `<phone>` in place of such data, and how many were replaced."""
    total = 0
    for pattern, placeholder in ((_EMAIL, "<email>"), (_IP, "<ip>"), (_PHONE, "<phone>")):
        text, count = pattern.subn(placeholder, text)
        total += count
    return text, total
