"""Whether the code of an answer passes the tests of its problem."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from genai_core.errors import InputError
from genai_core.mapping import usable_cores
from genai_core.sandbox import passes

ALLOW = "GENAI_ALLOW_CODE"
"""Variable of the environment that lets code run here which a model wrote, and tests that came with data."""

_FENCED = re.compile(r"```[^`\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
"""What stands after the fence on its line, a language or a file, is no code."""


def require_code_allowed(name: str) -> None:
    """Raises InputError where this machine was not told that it may run such code."""
    if os.environ.get(ALLOW) != "1":
        raise InputError(f"rlhf.rewards.{name}: unit_tests runs code that a model wrote, and tests that came with the "
                         f"data, on this machine, behind an audit hook and limits that are no prison (docs/code.md); "
                         f"where that is wanted, set {ALLOW}=1 in the environment of the machine that runs the stage")


def code_of(answer: str) -> str:
    """The first fenced block of an answer, or all of it where none is fenced."""
    fenced = _FENCED.search(answer)
    return fenced[1] if fenced else answer


def pass_tests(answers: Sequence[str], tests: Sequence[Sequence[str]], seconds: float) -> list[float]:
    """For each answer 1 where it runs, and all of its tests after it, else 0."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        return [float(passed) for passed in pool.map(lambda code, its_tests: passes(code, seconds, its_tests),
                                                     map(code_of, answers), tests)]
