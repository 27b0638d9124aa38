"""Rewards that need no model: each is computed from the text of an answer and from what its record says is right.

No PyTorch here: this is also what the process imports in which functions and patterns are run (apart.py).
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from genai_core.config.rewards import FunctionReward, JsonSchemaReward, PatternReward, UnitTestsReward
from genai_core.data.chat import Chat
from genai_core.rewards.answers import equal_number, exact_answer
from genai_core.rewards.functions import call_function
from genai_core.rewards.unit_tests import pass_tests


class Submissions(NamedTuple):
    """Answers to prompts, handed in to be scored; the three have the same length."""

    prompts: list[Chat]
    answers: list[str]
    right: list[tuple[str, ...]]
    """Of each prompt the answers that count as right."""


def values_of(reward: Any, submissions: Submissions) -> list[Any]:
    """What a reward says of each answer."""
    return KINDS[reward.kind](reward, submissions)


def _exact_answer(reward: Any, submissions: Submissions) -> list[float]:
    return [float(exact_answer(answer, right)) for _, answer, right in zip(*submissions, strict=True)]


def _number(reward: Any, submissions: Submissions) -> list[float]:
    return [float(equal_number(answer, right)) for _, answer, right in zip(*submissions, strict=True)]


def _pattern(reward: PatternReward, submissions: Submissions) -> list[float]:
    pattern = re.compile(reward.pattern)
    return [float(bool(pattern.search(answer))) for answer in submissions.answers]


def _json_schema(reward: JsonSchemaReward, submissions: Submissions) -> list[float]:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # an empty registry: a reference to an address is not fetched
    validator = Draft202012Validator(reward.json_schema, registry=Registry())

    def accepted(answer: str) -> bool:
        try:
            return validator.is_valid(json.loads(answer, parse_constant=_no_json))
        except (ValueError, ArithmeticError, RecursionError):      # also too deep, or too large a number, to check
            return False

    return [float(accepted(answer)) for answer in submissions.answers]


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _unit_tests(reward: UnitTestsReward, submissions: Submissions) -> list[float]:
    return pass_tests(submissions.answers, submissions.right, reward.seconds)


def _function(reward: FunctionReward, submissions: Submissions) -> list[Any]:
    return call_function(reward.function, submissions.prompts, submissions.answers,
                         [list(each) for each in submissions.right])


KINDS: dict[str, Callable[[Any, Submissions], list[Any]]] = {
    "exact_answer": _exact_answer, "number": _number, "pattern": _pattern, "json_schema": _json_schema,
    "unit_tests": _unit_tests, "function": _function}
