"""The config of a whole run, and how a preset becomes one."""

from functools import partial
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from genai_core.config.base import Config
from genai_core.config.data import CleanConfig, CollectConfig, TokenizeConfig
from genai_core.config.dial import dial
from genai_core.config.presets import PRESETS, explain, merged, preset_names, read_preset, read_yaml, set_value
from genai_core.config.release import EvaluateConfig, PromoteConfig, QuantizeConfig
from genai_core.config.training import InstructConfig, PretrainConfig, RewardConfig, RlhfConfig
from genai_core.errors import InputError


class Runtime(Config):
    """How to run, as opposed to what: no part of any cache key."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes the GPU when there is one."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to use torch.compile; `auto` does for runs long enough to earn the compilation back."""
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    """Time between two checkpoints of a training stage, in seconds."""
    stall_steps: int = Field(default=500, ge=0)
    """Somebody is told when the loss reaches no new low in so many steps, or is not finite; 0 for never."""
    power_watts: float = Field(default=0.0, ge=0)
    """Power draw of the machine under load, in watts, for the estimate of energy; 0 assumes 10 W for each busy core."""
    price_per_hour: float = Field(default=0.0, ge=0)
    """Price of an hour of the machine."""
    currency: str = "EUR"
    """Currency of the price."""


MODELS = ("base", "instruct", "rlhf", "int8", "int4")
"""Columns of the evaluation."""
OPPONENTS = (*MODELS, "baseline", "champion", "champion_base")
"""What a model may be held against; the last two are of the release in service."""
GATED_STAGES = ("reward", "rlhf", "quantize")
"""Stages whose own metrics a gate may be on."""


class PipelineConfig(Config):
    """Every stage's config, and the dial that the defaults of the training stages come from."""

    depth: int = Field(ge=1, le=64)
    """The one dial: sets width, heads, learning rates and token budgets, each of which may be overridden."""
    runtime: Runtime = Runtime()
    collect: CollectConfig
    clean: CleanConfig = CleanConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    pretrain: PretrainConfig
    instruct: InstructConfig
    reward: RewardConfig
    rlhf: RlhfConfig
    quantize: QuantizeConfig = QuantizeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()

    @model_validator(mode="after")
    def contexts_fit(self) -> "PipelineConfig":
        for stage in ("instruct", "reward"):
            if getattr(self, stage).context_length > self.pretrain.context_length:
                raise ValueError(f"{stage}.context_length {getattr(self, stage).context_length} is longer than "
                                 f"pretrain.context_length {self.pretrain.context_length}")
        group = self.quantize.int4_group_size
        for name in ("hidden_size", "feed_forward_size"):
            if getattr(self.pretrain, name) % group:
                raise ValueError(f"quantize.int4_group_size {group} does not divide pretrain.{name} "
                                 f"{getattr(self.pretrain, name)}")
        if self.rlhf.completion_tokens + 16 > self.pretrain.context_length:
            raise ValueError(f"rlhf.completion_tokens {self.rlhf.completion_tokens} leaves no room for a prompt in "
                             f"pretrain.context_length {self.pretrain.context_length}")
        return self


    @model_validator(mode="after")
    def gates_name_what_there_is(self) -> "PipelineConfig":
        """A gate that can never be judged ends the run before it begins, not after its last hour."""
        for name, pair in self.promote.pairs.items():
            for field, column, known in (("model", pair.model, MODELS), ("against", pair.against, OPPONENTS)):
                if column not in known:
                    raise ValueError(f"promote.pairs.{name}.{field} {column} is none of {', '.join(known)}")
        for name, gate in self.promote.gates.items():
            for figure in (gate.figure, gate.reference or gate.figure):
                if figure.partition("/")[0] not in (*OPPONENTS, *GATED_STAGES):
                    raise ValueError(f"promote.gates.{name}: there can be no figure {figure}; one begins with "
                                     f"{', '.join((*MODELS, 'baseline', 'reward', 'quantize'))} and a slash")
        return self


STAGE_NAMES = tuple(name for name in PipelineConfig.model_fields if name not in ("depth", "runtime"))
"""The stages, each with a section of its own, in the order in which they run."""

def load_pipeline(preset: str, overrides: dict[str, Any] | None = None) -> PipelineConfig:
    """The config of a preset: `dial(depth)`, then the preset's own values, then `overrides` (`stage.field` to value).

    `preset` is one of the shipped names or the path of a YAML file, which may say `extends: NAME`.
    Raises InputError, in one line that names the field, for anything that is not right.
    """
    values = read_preset(preset, {name: partial(read_yaml, str(PRESETS / f"{name}.yaml")) for name in preset_names()})
    for dotted, value in (overrides or {}).items():
        set_value(values, dotted, value)
    depth = values.get("depth")
    if not isinstance(depth, int) or not 1 <= depth <= 64:
        raise InputError(f"depth: {depth!r} is not a whole number from 1 to 64")
    values = merged(dial(depth), values)
    try:
        return PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, preset, PipelineConfig)) from None
