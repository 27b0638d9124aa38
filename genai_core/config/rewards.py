"""What RLHF raises: a reward model, answers that can be verified, functions of installed packages."""

import json
import re
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from genai_core.config.base import Config

FUNCTIONS = "genai_core.rewards"
"""The group of entry points by which an installed package offers reward functions."""


class _Reward(Config):
    weight: float = 1.0
    """What it counts in the sum of all rewards; negative for what is to become less."""


class RewardModelReward(_Reward):
    """The score of the reward model that the stage `reward` trains."""

    kind: Literal["reward_model"] = "reward_model"


class ExactAnswerReward(_Reward):
    """1 where words, numbers and mathematical signs of the answer are those of one that counts as right, else 0."""

    kind: Literal["exact_answer"]


class NumberReward(_Reward):
    """1 where the last number in the answer equals that of one that counts as right, else 0."""

    kind: Literal["number"]


class PatternReward(_Reward):
    """1 where a regular expression is found in the answer, else 0."""

    kind: Literal["pattern"]
    pattern: str = Field(min_length=1)
    r"""The regular expression, in Python's syntax; `\A` and `\Z` are the beginning and the end of the answer."""

    @field_validator("pattern")
    @classmethod
    def can_be_compiled(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:      # counts and nesting without measure
            shown = pattern if len(pattern) <= 100 else f"{pattern[:100]} …"
            raise ValueError(f"{shown!r} is no regular expression ({error})") from None
        return pattern


class JsonSchemaReward(_Reward):
    """1 where the answer is a JSON document that a schema accepts, else 0."""

    kind: Literal["json_schema"]
    json_schema: dict[str, Any]
    """A JSON Schema (draft 2020-12); it may refer to its own parts, and to no address."""

    @field_validator("json_schema")
    @classmethod
    def is_a_schema(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from jsonschema import Draft202012Validator, SchemaError

        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"no JSON Schema: {error.message}") from None
        except (OverflowError, RecursionError) as error:      # in a pattern of it, or nested without measure
            raise ValueError(f"no JSON Schema: {error}") from None
        return schema

    @field_validator("json_schema")
    @classmethod
    def refers_to_its_own_parts(cls, schema: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError for a reference that leads nowhere, to an address, or to itself and so without end."""
        from jsonschema import Draft202012Validator
        from jsonschema_specifications import REGISTRY
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012

        def ends(part: Any, resolver: Any) -> bool:
            validator = Draft202012Validator(part.contents, _resolver=resolver)
            try:
                for text in ("null", "true", "0", '""', "[]", "{}"):
                    validator.is_valid(json.loads(text))
            except RecursionError:
                return False
            return True

        root = DRAFT202012.create_resource(schema)
        waiting = [(root, REGISTRY.resolver_with_root(root))]
        seen, parts = set(), []
        while waiting:
            part, resolver = waiting.pop()
            if id(part.contents) in seen or not isinstance(part.contents, dict):
                continue
            seen.add(id(part.contents))
            parts.append((part, resolver))
            waiting += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
            for keyword in {"$ref", "$dynamicRef"} & part.contents.keys():
                reference = part.contents[keyword]
                try:
                    found = resolver.lookup(reference)
                except (Unresolvable, ValueError):
                    raise ValueError(f"{keyword}: {reference!r} is no part of the schema, and nothing is fetched from "
                                     "an address") from None
                if not isinstance(found.contents, dict | bool):
                    raise ValueError(f"{keyword}: {reference!r} is no schema")
                waiting.append((DRAFT202012.create_resource(found.contents), found.resolver))
        if not all(ends(part, resolver) for part, resolver in parts):
            raise ValueError("a part of the schema refers to itself without end")
        return schema


class UnitTestsReward(_Reward):
    """1 where the answer is Python code that passes the tests of its problem, else 0.

    A problem's answers are tests: statements that raise an exception where the code before them is wrong.
    """

    kind: Literal["unit_tests"]
    seconds: float = Field(default=2.0, gt=0, le=60)
    """Time that the code of one answer may take."""


class FunctionReward(_Reward):
    """What a function of an installed package returns, an entry point of the group `genai_core.rewards`."""

    kind: Literal["function"]
    function: str
    """Name of the entry point."""

    @field_validator("function")
    @classmethod
    def is_installed(cls, name: str) -> str:
        found = entry_points(group=FUNCTIONS)
        offered = [entry for entry in found if entry.name == name]
        if not offered:
            raise ValueError(f"no installed package offers the function {name!r} as an entry point of {FUNCTIONS}; "
                             f"there {_listed(sorted({entry.name for entry in found}))}")
        if len(offered) > 1:
            packages = ", ".join(entry.dist.name for entry in offered if entry.dist)
            raise ValueError(f"{name!r} is offered by more than one package ({packages}); uninstall all but one")
        return name


def _listed(names: list[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"


AnyReward = Annotated[RewardModelReward | ExactAnswerReward | NumberReward | PatternReward | JsonSchemaReward
                      | UnitTestsReward | FunctionReward, Field(discriminator="kind")]

RewardName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]

VERIFYING = ("exact_answer", "number", "unit_tests")
"""Kinds that compare an answer with what its problem says, so that prompts must be problems."""
