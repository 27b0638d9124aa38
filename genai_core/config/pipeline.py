"""The config of a whole run, and how a preset becomes one."""

from functools import partial
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from genai_core.config.base import Config
from genai_core.config.base_model import BaseModelConfig
from genai_core.config.data import CleanConfig, CollectConfig, TokenizeConfig, contents_of
from genai_core.config.dial import dial
from genai_core.config.own_base import names_a_base, rates_of_a_base, with_a_base, without_its_tokens
from genai_core.config.own_data import Recognise, asked_to_replace, with_own_data, without_its_data
from genai_core.config.presets import PRESETS, explain, merged, preset_names, read_preset, read_yaml, set_value
from genai_core.config.release import (
    BLOCK,
    GATED_STAGES,
    MODELS,
    OPPONENTS,
    PARENT,
    EvaluateConfig,
    Gold,
    PromoteConfig,
    QuantizeConfig,
)
from genai_core.config.runtime import Runtime
from genai_core.config.tasks import Mixture, Task
from genai_core.config.training import (
    ALL_LINEAR,
    LINEAR_LAYERS,
    InstructConfig,
    PretrainConfig,
    RewardConfig,
    RlhfConfig,
)
from genai_core.errors import InputError

StageName = Literal["adopt", "collect", "clean", "tokenize", "pretrain", "instruct", "reward", "rlhf", "quantize",
                    "evaluate", "promote"]
NEEDS: dict[str, tuple[str, ...]] = {
    "adopt": (), "collect": (), "clean": ("collect",), "tokenize": ("clean",), "pretrain": ("tokenize",),
    "instruct": ("pretrain",), "reward": ("instruct",), "rlhf": ("instruct",), "quantize": ("pretrain",),
    "evaluate": ("quantize",), "promote": ("evaluate",)}
"""Which stages each of them cannot do without, where there is no base from outside; rlhf needs `reward` too where a
reward model is among its rewards."""


class PipelineConfig(Config):
    """Every stage's config, and the dial that the defaults of the training stages come from."""

    depth: int = Field(ge=1, le=64)
    """The one dial: sets width, heads, learning rates and token budgets, each of which may be overridden."""
    stages: tuple[StageName, ...] = ()
    """Stages to run, with those that they need; empty for all that the data allows."""
    tasks: dict[str, Task] = Field(default_factory=dict)
    """What the chat model is fine-tuned on and asked, each task by its name."""
    runtime: Runtime = Runtime()
    base: BaseModelConfig = BaseModelConfig()
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
        for stage in ("instruct", "reward") if not self.base.given else ():      # a base has a context of its own
            if getattr(self, stage).context_length > self.pretrain.context_length:
                raise ValueError(f"{stage}.context_length {getattr(self, stage).context_length} is longer than "
                                 f"pretrain.context_length {self.pretrain.context_length}")
        if self.base.given:
            return self
        made = self.pretrain
        for name, width in {"hidden_size": made.hidden_size, "feed_forward_size": made.feed_forward_size,
                            "heads times head_size": made.heads * made.head_size}.items():
            if width % BLOCK:
                raise ValueError(f"pretrain.{name} {width} is no multiple of {BLOCK}, the number of weights "
                                 "that share a scale in the quantized model")
        if "rlhf" in self.stage_names and self.rlhf.completion_tokens + 16 > self.pretrain.context_length:
            raise ValueError(f"rlhf.completion_tokens {self.rlhf.completion_tokens} leaves no room for a prompt in "
                             f"pretrain.context_length {self.pretrain.context_length}")
        return self

    @model_validator(mode="after")
    def ranks_divide_batches(self) -> "PipelineConfig":
        """A share that is no whole number of examples would be missed only once a stage trains."""
        ranks = self.runtime.processes
        for stage in ("pretrain", "instruct", "reward", "rlhf") if ranks > 1 else ():
            settings = getattr(self, stage)
            shared = {"batch_size": settings.batch_size}
            if stage == "rlhf":
                shared = {"batch_size": self.rlhf.prompts_of_a_batch, "replay_rows": self.rlhf.replay_rows}
            for field, count in shared.items():
                if stage in self.stage_names and count % (ranks * settings.accumulation_steps):
                    of = "prompts" if (stage, field) == ("rlhf", "batch_size") else "examples"
                    raise ValueError(f"{stage}.{field} {getattr(settings, field)}: {ranks} ranks (runtime.processes) "
                                     f"with {settings.accumulation_steps} micro-batches each (accumulation_steps) do "
                                     f"not divide its {count} {of} evenly")
        return self

    @model_validator(mode="after")
    def adapters_name_layers(self) -> "PipelineConfig":
        """A layer that is none would be missed only once the base model is made."""
        for stage in ("instruct", "reward", "rlhf"):
            lora = getattr(self, stage).lora
            known = lora is None or lora.of_all or self.base.given      # a base may call its layers otherwise
            for target in () if known else lora.targets:
                if target.rpartition(".")[2] not in LINEAR_LAYERS:
                    raise ValueError(f"{stage}.lora.targets: no linear layer is called {target!r}; there are "
                                     f"{', '.join(LINEAR_LAYERS)}, or {ALL_LINEAR}")
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
        for name in self.rlhf.tasks:
            if (verifying := self.rlhf.verifying_rewards) and name in self.tasks \
                    and self.tasks[name].content != "problems":
                raise ValueError(f"rlhf.tasks: {name} is of {self.tasks[name].content}, and rlhf.rewards."
                                 f"{verifying[0]} compares an answer with that of its problem; name tasks of problems")
        named = [("rlhf.tasks", name) for name in self.rlhf.tasks]
        named += [("evaluate.judge.tasks", name) for name in self.evaluate.judge.tasks]
        for place, name in [*named, ("evaluate.gold.task", self.evaluate.gold.task)]:
            if name and name not in self.tasks:
                raise ValueError(f"{place}: there is no task {name!r} among {', '.join(self.tasks) or 'none'}")
        if (taught := self.tasks.get(self.evaluate.gold.task)) and taught.content != "labelled":
            raise ValueError(f"evaluate.gold.task: {self.evaluate.gold.task} is of {taught.content}, and labels alone "
                             "tell what is good; name a task of labelled records, or none")
        return self

    @model_validator(mode="after")
    def given_preferences_have_a_source(self) -> "PipelineConfig":
        """Else it would be missed only once the instruct model is made."""
        named = self.reward.sources
        asked = {name.partition("/")[0] for name in named} or set(self.collect.sources)
        if "rlhf" in self.stage_names and self.rlhf.takes_given_pairs and not any(
                {"preferences", "auto"} & self._contents(name) for name in asked if self.collect.sources[name].enabled):
            brought = f"{', '.join(named)} bring none" if named else "no source brings any"
            raise ValueError(f"rlhf.dpo.pairs: given takes preferences of reward.sources, and {brought}; bring some "
                             "(--preferences FILE) and name their source there, or take sampled")
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
        if reason := self._no_text:
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
        contents = ("preferences", "ratings", "chats", "problems", "documents", "pairs", "labelled")
        by_content = [tuple(name for name, task in tasks.items() if task.content == content)
                      for content in (("problems",) if self.rlhf.verifying_rewards else contents)]
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
            waiting += self._needs(name)
            waiting += ["reward"] if name == "rlhf" and self.rlhf.needs_reward_model else []
        return tuple(name for name in STAGE_NAMES if name in wanted)

    def _needs(self, stage: str) -> tuple[str, ...]:
        """Which stages a stage cannot do without in this run."""
        if not self.base.given:
            return NEEDS[stage]
        needed = NEEDS[stage]
        if "pretrain" in needed and not self.base.continued:
            needed = (*(name for name in needed if name != "pretrain"), "tokenize")
        return (*needed, "adopt") if stage == "tokenize" else needed

    @property
    def _no_text(self) -> str:
        """Why there is no text; empty where there is some."""
        if self.sources_of("documents", "labelled"):
            return ""
        return ("no source of text is switched on, which a base model learns from; add one, or set "
                "collect.replace_sources to all_but_text, which keeps the preset's")

    def why_not(self, stage: str) -> str:
        """Why the data does not allow a stage; empty where it does."""
        if stage == "adopt" and not self.base.given:
            return "no base from outside is named (base.source)"
        if stage == "pretrain":
            if self.base.given and not self.base.continued:
                return "the base from outside is taken as it is; pretrain.tokens trains it further on the text"
            return self._no_text
        if stage in ("instruct", "reward", "rlhf") and not self.mixture.lessons:
            missing = "no chats or other tasks to fine-tune on"
            if stage == "instruct":
                return missing
            rated = f" ({missing}), which ratings of texts alone do not make; add chats"
            return "there is no instruct model" + (rated if self.sources_of("ratings") else "")
        if stage == "reward" and stage not in self.stages and not self.rlhf.needs_reward_model:
            return "none of rlhf.rewards is a reward model"
        if stage == "reward" or (stage == "rlhf" and self.rlhf.needs_reward_model):
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

    def beside(self, stage: str) -> tuple[str, ...]:
        """The stages of the run whose artifacts a stage may be given."""
        unused = {"reward"} if stage == "rlhf" and not self.rlhf.needs_reward_model else set()
        return tuple(name for name in self.stage_names if name not in unused)


DERIVED: dict[str, Any] = {"mixture": Mixture, "questions": Mixture, "active_tasks": dict[str, Task]}
"""Parts of the config that follow from others, by the names of their properties, with their types."""
STAGE_NAMES: tuple[str, ...] = get_args(StageName)
"""The stages in the order in which they run; each has a section of its own, by its name but for `SECTIONS`."""
SECTIONS = {"adopt": "base"}
"""Sections that are called otherwise than their stage."""


def load_pipeline(preset: str, overrides: dict[str, Any] | None = None, recognise: Recognise | None = None
                  ) -> PipelineConfig:
    """The config of a preset: `dial(depth)`, with other rates for a pretrained base, then the preset's own values, then
    `overrides` (`stage.field` to value).

    `preset` is one of the shipped names or the path of a YAML file, which may say `extends: NAME`. `recognise` looks
    into files whose kind of content is not declared. Raises InputError, in one line that names the field, for anything
    that is not right.
    """
    values = read_preset(preset, {name: partial(read_yaml, str(PRESETS / f"{name}.yaml")) for name in preset_names()})
    overrides = dict(overrides or {})
    values = without_its_data(values, asked_to_replace(overrides))
    values = without_its_tokens(values) if names_a_base(overrides) else values
    for dotted, value in overrides.items():
        set_value(values, dotted, value)
    depth = values.get("depth")
    if not isinstance(depth, int) or not 1 <= depth <= 64:
        raise InputError(f"depth: {depth!r} is not a whole number from 1 to 64")
    defaults = merged(dial(depth), rates_of_a_base(values))
    values = with_own_data(with_a_base(merged(defaults, values), values), recognise)
    reward, instruct = values.get("reward"), values.get("instruct")
    if isinstance(reward, dict) and isinstance(instruct, dict) and "context_length" in instruct:
        reward.setdefault("context_length", instruct["context_length"])
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, preset, PipelineConfig)) from None
    rlhf = config.rlhf.model_copy(update={"tasks": config.alignment_tasks})
    lost = config.evaluate.gold.task and config.evaluate.gold.task not in config.active_tasks
    judge = config.evaluate.judge
    if judge.model:
        asked = tuple(name for name in judge.tasks if name in config.active_tasks) or config.alignment_tasks
        judge = judge.model_copy(update={"tasks": asked})
    evaluate = config.evaluate.model_copy(      # the judgements teach the gold reward then
        update={"judge": judge} | ({"gold": Gold()} if lost else {}))
    return config.model_copy(update={"rlhf": rlhf, "evaluate": evaluate})
