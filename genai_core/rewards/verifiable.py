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


class Answered(NamedTuple):
    """Answers to prompts; the three have the same length."""

    prompts: list[Chat]
    answers: list[str]
    right: list[tuple[str, ...]]
    """Of each prompt the answers that count as right."""


def values_of(reward: Any, answered: Answered) -> list[Any]:
    """What a reward says of each answer."""
    return KINDS[reward.kind](reward, answered)


def _exact_answer(reward: Any, answered: Answered) -> list[float]:
    return [float(exact_answer(answer, right)) for _, answer, right in zip(*answered, strict=True)]


def _number(reward: Any, answered: Answered) -> list[float]:
    return [float(equal_number(answer, right)) for _, answer, right in zip(*answered, strict=True)]


def _pattern(reward: PatternReward, answered: Answered) -> list[float]:
    pattern = re.compile(reward.pattern)
    return [float(bool(pattern.search(answer))) for answer in answered.answers]


def _json_schema(reward: JsonSchemaReward, answered: Answered) -> list[float]:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # an empty registry: a reference to an address is not fetched
    validator = Draft202012Validator(reward.json_schema, registry=Registry())

    def accepted(answer: str) -> bool:
        try:
            document = json.loads(answer, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return False
        return validator.is_valid(document)

    return [float(accepted(answer)) for answer in answered.answers]


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _unit_tests(reward: UnitTestsReward, answered: Answered) -> list[float]:
    return pass_tests(answered.answers, answered.right, reward.seconds)


def _function(reward: FunctionReward, answered: Answered) -> list[Any]:
    return call_function(reward.function, answered.prompts, answered.answers, [list(each) for each in answered.right])


KINDS: dict[str, Callable[[Any, Answered], list[Any]]] = {
    "exact_answer": _exact_answer, "number": _number, "pattern": _pattern, "json_schema": _json_schema,
    "unit_tests": _unit_tests, "function": _function}
