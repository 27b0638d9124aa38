"""What vLLM's log says of why it did not start."""

import re

_INVALID = re.compile(r"Value error, (.+?)(?: \[type=|$)", re.MULTILINE)
_RAISED = re.compile(r"^(?:\(.*?\) )?(?:ERROR [^\]]*\] )?(?:[\w.]*\.)?(\w*(?:Error|Exception)): (.+)$", re.MULTILINE)
_REFUSED = re.compile(r"^[\w .-]+: error: (.+)$", re.MULTILINE)
_SAYS_NOTHING = ("initialization failed", "See root cause", "died unexpectedly")
LONGEST = 300


def reason_in(log: str) -> str:
    """The cause in one line; empty where the log names none."""
    causes = [*_INVALID.findall(log), *_REFUSED.findall(log),
              *(text for _, text in _RAISED.findall(log) if not any(words in text for words in _SAYS_NOTHING))]
    return str(causes[0]).strip()[:LONGEST] if causes else ""
