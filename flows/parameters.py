"""The parameters of the flows as the Prefect UI shows them: a form with every field of every stage, none required.

An empty field means the preset's value. Bounds and descriptions are those of the configs themselves, so that the form
refuses what the config would refuse.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, create_model, model_serializer
from pydantic.fields import FieldInfo

from genai_core.config.base import Config
from genai_core.config.pipeline import SECTIONS, STAGE_NAMES, load_pipeline
from genai_core.config.presets import preset_names
from genai_core.errors import InputError

SHOWN_DEFAULTS = "laptop"


class Form(BaseModel):
    """A part of the form; only what was filled in counts."""

    model_config = ConfigDict(extra="forbid")

    @model_serializer(mode="wrap")
    def _filled_in(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value not in (None, {})}


def _without_null(schema: dict[str, Any]) -> None:
    """A number box in place of a choice between a number and nothing: leaving it empty says nothing already."""
    schema.pop("default", None)
    choices = [choice for choice in schema.pop("anyOf", []) if choice.get("type") != "null"]
    if len(choices) == 1:
        schema.update(choices[0])
    elif choices:
        schema["anyOf"] = choices


def _form(section: str, config: type[Config], defaults: Config | None) -> type[Form]:
    """The fields of a stage's config, none of them required.

    Fields that hold tables (sources, gates) do not fit a form: `overrides` sets them. A single choice is none.
    """
    fields: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        if get_origin(field.annotation) is dict or len(get_args(field.annotation)) == 1:
            continue
        default = getattr(defaults, name, None)
        if default is None and (optional := _config_of(field)):      # a part that the preset does not have
            part = _form(name, optional, None)
            fields[name] = (part, Field(default_factory=part, description=field.description))
            continue
        if isinstance(default, Config):
            part = _form(name, type(default), default)
            fields[name] = (part, Field(default_factory=part, description=field.description))
            continue
        note = "" if default is None else f" Preset {SHOWN_DEFAULTS}: {_shown(default)}."
        described = Field(default=None, description=f"{field.description or ''}{note}",
                          json_schema_extra=_without_null)
        fields[name] = (_optional(field), described)
    return create_model(f"{section.capitalize()}Fields", __base__=Form, __doc__=config.__doc__, **fields)


def _config_of(field: FieldInfo) -> type[Config] | None:
    """The config that an optional field may hold."""
    found = [kind for kind in get_args(field.annotation) if isinstance(kind, type) and issubclass(kind, Config)]
    return found[0] if found else None


def _optional(field: FieldInfo) -> Any:
    # a switch that nobody touched would send "off": the form offers the two words, or neither
    kind: Any = Literal["yes", "no"] if field.annotation is bool else field.annotation
    for bound in field.metadata:
        kind = Annotated[kind, bound]
    return kind | None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _all_forms() -> type[Form]:
    preset = load_pipeline(SHOWN_DEFAULTS)
    forms: dict[str, Any] = {}
    for section in (*(SECTIONS.get(name, name) for name in STAGE_NAMES), "runtime"):
        config = getattr(preset, section)
        if isinstance(config, Config) and section != "promote":
            form = _form(section, type(config), config)
            forms[section] = (form, Field(default_factory=form, description=form.__doc__))
    return create_model("Fields", __base__=Form, __doc__="Fields of the stages; what is empty comes from the preset.",
                        **forms)


if TYPE_CHECKING:
    Preset = str
    StageName = str
    OptionalStage = str
    Fields = BaseModel
else:
    Preset = Literal[*preset_names()]
    StageName = Literal[*STAGE_NAMES]
    OptionalStage = Literal["", *STAGE_NAMES]
    Fields = _all_forms()
Amount = Annotated[float, Field(ge=0)]
Depth = Annotated[int, Field(ge=0, le=64)]
NOTHING_SET = Fields()
NOTHING_ELSE: dict[str, Any] = {}


def overrides_of(depth: int, fields: BaseModel, overrides: dict[str, Any]) -> dict[str, Any]:
    """Everything that differs from the preset, as `stage.field` to value.

    Raises InputError when a field is set both in the form and in `overrides`.
    """
    chosen: dict[str, Any] = {"depth": depth} if depth else {}
    for section, values in fields.model_dump(mode="json").items():
        chosen |= {f"{section}.{name}": value for name, value in values.items()}
    both = sorted(chosen.keys() & overrides.keys())
    if both:
        raise InputError(f"{both[0]}: set in the form and in overrides; say it once")
    return chosen | overrides


def preset_parameters(preset: str) -> dict[str, Any]:
    """The parameters of a flow for a preset's name or the path of a YAML file."""
    return {"preset": preset} if preset in preset_names() else {"preset_file": preset}
