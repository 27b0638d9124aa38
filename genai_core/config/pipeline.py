"""The config of a whole run, and how a preset becomes one."""

import re
from functools import partial
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from genai_core.config.base import Config
from genai_core.config.data import CleanConfig, CollectConfig, TokenizeConfig, contents_of
from genai_core.config.dial import dial
from genai_core.config.own_data import Recognise, asked_to_replace, with_own_data, without_its_data
from genai_core.config.presets import PRESETS, explain, merged, preset_names, read_preset, read_yaml, set_value
from genai_core.config.release import (
    GATED_STAGES,
    MODELS,
    OPPONENTS,
    PARENT,
    EvaluateConfig,
    Gold,
    PromoteConfig,
    QuantizeConfig,
)
from genai_core.config.tasks import Mixture, Task
from genai_core.config.training import InstructConfig, PretrainConfig, RewardConfig, RlhfConfig
from genai_core.errors import InputError

StageName = Literal["collect", "clean", "tokenize", "pretrain", "instruct", "reward", "rlhf", "quantize", "evaluate",
                    "promote"]
NEEDS: dict[str, tuple[str, ...]] = {
    "collect": (), "clean": ("collect",), "tokenize": ("clean",), "pretrain": ("tokenize",), "instruct": ("pretrain",),
    "reward": ("instruct",), "rlhf": ("reward",), "quantize": ("pretrain",), "evaluate": ("quantize",),
    "promote": ("evaluate",)}
"""Which stages each of them cannot do without."""
_SCHEDULER = re.compile(r"(tcp|tls)://([\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")


class Runtime(Config):
    """How to run, as opposed to what: no part of any cache key."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; `auto` takes the GPU when there is one, `mps` is that of a Mac."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to use torch.compile; `auto` does for runs long enough to earn the compilation back."""
    deterministic: Literal["auto", "on", "off"] = "auto"
    """Whether training gives the same bytes each time; `auto` does on a CPU, where it costs nothing."""
    recompute_activations: bool = False
    """Whether the backward pass makes the activations of each block again: less memory, a third more arithmetic."""
    processes: int = Field(default=1, ge=1, le=1024)
    """Ranks of a training stage: processes that train one model together, each on a GPU of its own where there are
    some. The result is that of one, up to rounding."""
    hosts: int = Field(default=1, ge=1, le=1024)
    """Machines that those ranks are shared out over; on each but the one that runs the flow, `genai join` waits."""
    rendezvous: str = ""
    """Address of this machine at which the hosts meet, e.g. `gpu-1:29400`."""
    meet_seconds: float = Field(default=300.0, gt=0)
    """How long hosts wait for each other."""
    silent_seconds: float = Field(default=60.0, ge=30)
    """A machine that takes part in a training, or makes a stage elsewhere, is lost when it gives no sign of life for so
    long."""
    placement: dict[str, str] = Field(default_factory=dict)
    """Stages that a worker of a Prefect work pool makes, on another machine: `pretrain: genai-gpu`."""
    stages_at_once: int = Field(default=1, ge=1, le=64)
    """Stages that do not need each other, such as the models of a family, run side by side, so many at most: each in a
    process of its own, and on a GPU of its own where there are several."""
    shard_above: int = Field(default=1_000_000_000, ge=0)
    """Parameters above which each rank has a part of the model and of the optimizer's state (FSDP2); up to it, a copy
    (DDP)."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Processes of the data stages, for each some 0.3 GB of memory; 0 for one a core. What they write is the same."""
    data_cluster: str = ""
    """Address of a Dask scheduler, e.g. `tcp://scheduler:8786`, whose workers run the data stages; empty for processes
    of this machine. What they write is the same (docs/scaling.md)."""
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

    @model_validator(mode="after")
    def one_kind_of_processes(self) -> "Runtime":
        if self.processes > 1 and self.stages_at_once > 1:
            raise ValueError(f"processes {self.processes} and stages_at_once {self.stages_at_once}: stages on several "
                             "ranks run one after the other; leave one of the two at 1")
        if self.processes % self.hosts:
            raise ValueError(f"processes {self.processes} is not a multiple of hosts {self.hosts}")
        if self.hosts > 1 and not self.rendezvous:
            raise ValueError(f"hosts {self.hosts}: where they meet is not said; set rendezvous to HOST:PORT of the "
                             "machine that runs the flow")
        return self

    @field_validator("data_cluster")
    @classmethod
    def names_a_scheduler(cls, address: str) -> str:
        if "@" in address:
            raise ValueError("an address with a user or a password is kept in records; Dask knows its peers by TLS "
                             "certificates, see docs/scaling.md")
        if address and not _SCHEDULER.fullmatch(address):
            raise ValueError("not the address of a Dask scheduler; write it as tcp://HOST:PORT or tls://HOST:PORT")
        return address


class PipelineConfig(Config):
    """Every stage's config, and the dial that the defaults of the training stages come from."""

    depth: int = Field(ge=1, le=64)
    """The one dial: sets width, heads, learning rates and token budgets, each of which may be overridden."""
    stages: tuple[StageName, ...] = ()
    """Stages to run, with those that they need; empty for all that the data allows."""
    tasks: dict[str, Task] = Field(default_factory=dict)
    """What the chat model is fine-tuned on and asked, each task by its name."""
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
        if "rlhf" in self.stage_names and self.rlhf.completion_tokens + 16 > self.pretrain.context_length:
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
            if (pair.model, pair.against) == (MODELS[0], PARENT):
                raise ValueError(f"promote.pairs.{name}.against: {pair.model} is made from no model of the run")
        for name, gate in self.promote.gates.items():
            for figure in (gate.figure, gate.reference or gate.figure):
                if figure.partition("/")[0] not in (*OPPONENTS, *GATED_STAGES):
                    raise ValueError(f"promote.gates.{name}: there can be no figure {figure}; one begins with "
                                     f"{', '.join((*MODELS, 'baseline', 'reward', 'quantize'))} and a slash")
        return self

    @model_validator(mode="after")
    def tasks_name_what_there_is(self) -> "PipelineConfig":
        """A name that no source or task has is a typing mistake; one that is switched off is left out."""
        for place, sources in [*((f"tasks.{name}.sources", task.sources) for name, task in self.tasks.items()),
                               ("reward.sources", self.reward.sources),
                               ("tokenize.sources", self.tokenize.sources),
                               ("pretrain.weights", tuple(self.pretrain.weights))]:
            for source in sources:
                if source.partition("/")[0] not in self.collect.sources:
                    raise ValueError(f"{place}: there is no source {source!r} among {', '.join(self.collect.sources)}; "
                                     "take the name out, or switch a source off with `enabled: false` in place of "
                                     "removing it")
        for name, task in self.tasks.items():
            for source in task.sources:
                brought = self._contents(source.partition("/")[0])
                if "auto" not in brought and task.content not in brought:
                    raise ValueError(f"tasks.{name}: {source} brings {', '.join(sorted(brought)) or 'nothing'}, and no "
                                     f"{task.content}")
        for source in self.tokenize.sources:
            if "/" in source:
                raise ValueError(f"tokenize.sources: {source!r} is a part of a source, and the tokenizer is trained on "
                                 f"whole ones; name {source.partition('/')[0]!r}")
        named = [("rlhf.tasks", name) for name in self.rlhf.tasks]
        for place, name in [*named, ("evaluate.gold.task", self.evaluate.gold.task)]:
            if name and name not in self.tasks:
                raise ValueError(f"{place}: there is no task {name!r} among {', '.join(self.tasks) or 'none'}")
        if (taught := self.tasks.get(self.evaluate.gold.task)) and taught.content != "labelled":
            raise ValueError(f"evaluate.gold.task: {self.evaluate.gold.task} is of {taught.content}, and labels alone "
                             "tell what is good; name a task of labelled records, or none")
        return self

    @model_validator(mode="after")
    def drift_is_of_what_there_is(self) -> "PipelineConfig":
        for name, gate in self.clean.gates.items():
            if gate.source and gate.source not in self.collect.sources:
                raise ValueError(f"clean.gates.{name}: there is no source {gate.source!r} among "
                                 f"{', '.join(self.collect.sources)}")
        return self

    @model_validator(mode="after")
    def stages_have_data(self) -> "PipelineConfig":
        for stage in self.stages:
            if reason := self.why_not(stage):
                raise ValueError(f"stages: {stage} cannot run: {reason}")
        if reason := self.why_not("pretrain"):
            raise ValueError(f"collect.sources: {reason}")
        return self

    def sources_of(self, *contents: str) -> list[str]:
        """Names of the sources that are switched on and bring one of these kinds of content."""
        return [name for name, source in self.collect.sources.items()
                if source.enabled and contents_of(source) & set(contents)]

    def _contents(self, source: str) -> set[str]:
        """The kinds of content that a source brings, labelled texts being documents too; `auto` where nobody knows."""
        brought = contents_of(self.collect.sources[source])
        unknown = getattr(self.collect.sources[source], "content", "") == "auto"
        return brought | ({"documents"} if "labelled" in brought else set()) | ({"auto"} if unknown else set())

    @property
    def active_tasks(self) -> dict[str, Task]:
        """The tasks that a source is switched on for."""
        on = [name for name, source in self.collect.sources.items() if source.enabled]

        def has_records(task: Task) -> bool:
            named = {name.partition("/")[0] for name in task.sources} or set(on)
            return any(name in named and {task.content, "auto"} & self._contents(name) for name in on)

        return {name: task for name, task in self.tasks.items() if has_records(task)}

    @property
    def mixture(self) -> Mixture:
        """What the chat model is fine-tuned on."""
        lessons = {name: task.lesson for name, task in sorted(self.active_tasks.items()) if task.examples != 0}
        return Mixture(lessons=lessons)      # in the order of names, as keys are: chats are drawn in it

    @property
    def questions(self) -> Mixture:
        """The tasks whose questions are the prompts of rlhf."""
        return Mixture(lessons={name: self.tasks[name].lesson for name in self.alignment_tasks})

    @property
    def alignment_tasks(self) -> tuple[str, ...]:
        """The tasks whose questions are the prompts of rlhf: those named, else those that the data gives."""
        tasks = self.active_tasks
        if self.rlhf.tasks:
            return tuple(name for name in self.rlhf.tasks if name in tasks)
        by_content = [tuple(name for name, task in tasks.items() if task.content == content)
                      for content in ("preferences", "ratings", "chats", "problems", "documents", "pairs", "labelled")]
        return next((names for names in by_content if names), ())

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of the run, in their order: those that the data allows, or those named and what they need."""
        if not self.stages:
            return tuple(name for name in STAGE_NAMES if not self.why_not(name))
        wanted: set[str] = set()
        waiting: list[str] = list(self.stages)
        while waiting:
            name = waiting.pop()
            wanted.add(name)
            waiting += NEEDS[name]
        return tuple(name for name in STAGE_NAMES if name in wanted)

    def why_not(self, stage: str) -> str:
        """Why the data does not allow a stage; empty where it does."""
        if stage == "pretrain" and not self.sources_of("documents", "labelled"):
            return ("no source of text is switched on, which a base model learns from; add one, or set "
                    "collect.replace_sources to all_but_text, which keeps the preset's")
        if stage in ("instruct", "reward", "rlhf") and not self.mixture.lessons:
            missing = "no chats or other tasks to fine-tune on"
            if stage == "instruct":
                return missing
            rated = f" ({missing}), which ratings of texts alone do not make; add chats"
            return "there is no instruct model" + (rated if self.sources_of("ratings") else "")
        if stage in ("reward", "rlhf"):
            judged = self.sources_of("ratings", "preferences")
            if self.reward.sources:
                labelled = self.sources_of("labelled") if self.evaluate.gold.label else []
                named = {name.partition("/")[0] for name in self.reward.sources}
                judged = [name for name in [*judged, *labelled] if name in named]
            if not judged:
                return "no source of ratings or preferences is switched on"
        if stage == "rlhf" and not self.alignment_tasks:
            return "no task is left whose questions could be its prompts"
        return ""


DERIVED: dict[str, Any] = {"mixture": Mixture, "questions": Mixture, "active_tasks": dict[str, Task]}
"""Parts of the config that follow from others, by the names of their properties, with their types."""
STAGE_NAMES: tuple[str, ...] = get_args(StageName)
"""The stages, each with a section of its own, in the order in which they run."""


def load_pipeline(preset: str, overrides: dict[str, Any] | None = None, recognise: Recognise | None = None
                  ) -> PipelineConfig:
    """The config of a preset: `dial(depth)`, then the preset's own values, then `overrides` (`stage.field` to value).

    `preset` is one of the shipped names or the path of a YAML file, which may say `extends: NAME`. `recognise` looks
    into files whose kind of content is not declared. Raises InputError, in one line that names the field, for anything
    that is not right.
    """
    values = read_preset(preset, {name: partial(read_yaml, str(PRESETS / f"{name}.yaml")) for name in preset_names()})
    overrides = dict(overrides or {})
    values = without_its_data(values, asked_to_replace(overrides))
    for dotted, value in overrides.items():
        set_value(values, dotted, value)
    depth = values.get("depth")
    if not isinstance(depth, int) or not 1 <= depth <= 64:
        raise InputError(f"depth: {depth!r} is not a whole number from 1 to 64")
    values = with_own_data(merged(dial(depth), values), recognise)
    reward, instruct = values.get("reward"), values.get("instruct")
    if isinstance(reward, dict) and isinstance(instruct, dict) and "context_length" in instruct:
        reward.setdefault("context_length", instruct["context_length"])
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, preset, PipelineConfig)) from None
    rlhf = config.rlhf.model_copy(update={"tasks": config.alignment_tasks})
    lost = config.evaluate.gold.task and config.evaluate.gold.task not in config.active_tasks
    evaluate = config.evaluate.model_copy(update={"gold": Gold()} if lost else {})      # the judgements teach it then
    return config.model_copy(update={"rlhf": rlhf, "evaluate": evaluate})
