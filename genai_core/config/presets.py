"""Presets: YAML files over files, overrides on top, and errors that name the field."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from genai_core.config.addresses import shown as without_secrets
from genai_core.config.base import Config
from genai_core.config.own_base import names_a_base, without_its_tokens
from genai_core.config.own_data import asked_to_replace, without_its_data
from genai_core.errors import InputError
from genai_core.roots import require_allowed

PRESETS = Path(__file__).parents[2] / "configs"
OF_KINDS = {("collect", "sources"): "source", ("rlhf", "rewards"): "reward"}
"""Mappings of what a `kind` tells apart, and what each of their entries is called."""


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """`["instruct.epochs=2"]` to `{"instruct.epochs": 2}`; values are read as YAML."""
    overrides = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {assignment!r}: write it as stage.field=value")
        try:
            overrides[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {assignment!r}: the value is not valid YAML") from None
    return overrides


def read_preset(preset: str, shipped: dict[str, Callable[[], dict[str, Any]]], seen: tuple[str, ...] = ()
                ) -> dict[str, Any]:
    """The values of a shipped preset, or of a YAML file, over those of the preset or file that it `extends`."""
    if preset not in shipped and not str(preset).endswith((".yaml", ".yml")):
        raise InputError(f"unknown preset {preset!r}: take one of {', '.join(shipped)}, or the path of a YAML file")
    if preset in seen:
        raise InputError(f"{preset}: presets extend each other in a circle ({' -> '.join((*seen, preset))})")
    if preset not in shipped:
        require_allowed(Path(preset), "preset file")
    values = shipped[preset]() if preset in shipped else read_yaml(preset)
    parent = values.pop("extends", None)
    asked = asked_to_replace(values)
    if not parent:
        return values
    inherited = read_preset(parent, shipped, (*seen, preset))
    inherited = without_its_data(inherited, asked)
    return merged(without_its_tokens(inherited) if names_a_base(values) else inherited, values)


def read_yaml(name: str) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError when it cannot be read or is none."""
    path = Path(name).expanduser()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError:
        raise InputError(f"{path}: there is no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a preset is a mapping of stages to their fields")
    return values


def merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """`high` over `low`, mapping by mapping; null removes what `low` says."""
    result = dict(low)
    for key, value in high.items():
        if value is None and isinstance(result.get(key), dict):
            del result[key]
            continue
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def set_value(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{dotted}: {parent} holds a value, not fields")
    both = merged({last: values.get(last)}, {last: value})
    values.pop(last, None)
    values.update(both)


def explain(error: ValidationError, preset: str, root: type[Config]) -> str:
    """What was wrong with a config, in one line that names each field; `root` is the model of the whole config."""
    lines = []
    for problem in error.errors():
        location = problem["loc"]
        called = OF_KINDS.get((str(location[0]), str(location[1])), "") if len(location) > 2 else ""
        named = [*location[:3], *location[4:]] if called else location      # without the kind
        place = ".".join(map(str, named))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"no such field{_nearest(problem['loc'], root)}"
        if problem["type"] == "union_tag_not_found":
            message = f"no {called} is called so, and a new one needs a kind: {', '.join(_kinds(root, location))}"
        if problem["type"] == "union_tag_invalid":
            message = f"kind {problem['ctx']['tag']!r} is none of {', '.join(_kinds(root, location))}"
        given = problem.get("input")
        is_plain = isinstance(given, str | int | float) and problem["type"] != "missing"
        shown = f" (got {without_secrets(repr(given))})" if is_plain else ""
        lines.append(f"{place or preset}: {message}{shown}")
    return "; ".join(lines)


def _kinds(root: type[Config], location: tuple[int | str, ...]) -> list[str]:
    """The kinds that an entry of the mapping at `location` may be of."""
    section: Any = root.model_fields[str(location[0])].annotation
    entry, _ = get_args(get_args(section.model_fields[str(location[1])].annotation)[1])      # of Annotated
    return sorted(kind for each in get_args(entry) for kind in get_args(each.model_fields["kind"].annotation))


def _nearest(location: tuple[int | str, ...], root: type[Config]) -> str:
    """The field names of the model that `location` points into, nearest first."""
    model: Any = root
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    names = list(getattr(model, "model_fields", {}))
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(names)}" if names else ""
