"""Configs of the stages that decide on a model: quantize, evaluate, promote."""

from typing import Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config

MODELS = ("base", "instruct", "rlhf", "int8", "int4")
"""Columns of the evaluation: each model is made from one before it, the quantized ones from the last."""
IN_SERVICE = ("champion", "champion_base")
"""Columns of the release in service, of which a first release has none to be held against."""
PARENT = "parent"
"""In place of a column: the model that a model was made from."""
OPPONENTS = (*MODELS, "baseline", PARENT, *IN_SERVICE)
"""What a model may be held against."""
BLOCK = 32
"""Weights of a row that share a scale in every quantized format."""
GATED_STAGES = ("reward", "rlhf", "quantize")
"""Stages whose own metrics a gate may be on."""


class QuantizeConfig(Config):
    """Store the weights in eight and in four bits."""

    calibration_tokens: int = Field(default=262_144, ge=0)
    """Tokens of training chats on which rounding to four bits keeps what the layers compute; 0 rounds each weight by
    itself."""
    decode_tokens: int = Field(default=128, ge=8)
    """Tokens to generate for the measurement of speed."""
    validation_tokens: int = Field(default=65_536, ge=1024)
    """Most validation tokens of each source for the comparison with full precision."""


class Gold(Config):
    """What the gold reward, by which RLHF is judged and which nothing is trained against, is learned from."""

    task: str = ""
    """A task of labelled records; empty for a share of the ratings and preferences, kept from the reward model."""
    label: str = ""
    """The label of it that counts as good."""
    fraction: float = Field(default=0.25, gt=0, lt=1)
    """That share, where no task is named; else the share of labelled texts that is kept from the reward model, where
    `reward.sources` names their source."""

    @model_validator(mode="after")
    def a_task_has_a_label(self) -> "Gold":
        if bool(self.task) != bool(self.label):
            raise ValueError("task and label belong together: give both or neither")
        return self


class Judge(Config):
    """A language model that says of each model whether its answers are better than those of the one before it."""

    model: str = ""
    """Directory of a model, or models:/NAME@ALIAS of the registry; empty for no judge."""
    tasks: tuple[str, ...] = ()
    """Tasks whose held-out questions are answered; empty for those whose questions are the prompts of rlhf."""
    questions: int = Field(default=200, ge=1)
    """Most questions."""


class LmEval(Config):
    """Tasks of lm-evaluation-harness."""

    tasks: tuple[str, ...] = ()
    """Names of tasks, each the YAML file NAME.yaml of the folder; empty for none."""
    folder: str = ""
    """Folder with the files of the tasks and their data, from the workspace on."""
    limit: int | None = Field(default=None, ge=1)
    """Most questions of each task; empty for all."""


class EvaluateConfig(Config):
    """The same table of figures for every language model of the run."""

    bits_per_byte_tokens: int = Field(default=131_072, ge=1024)
    """Most held-out tokens of each source for bits per byte."""
    reward_prompts: int = Field(default=512, ge=8)
    """Number of held-out prompts to answer, which the reward model and the gold reward score."""
    gold: Gold = Gold()
    """The independent measure of what RLHF is to raise."""
    judge: Judge = Judge()
    """Judge of pairs of answers, each in both orders."""
    lm_eval: LmEval = LmEval()
    """Tasks of lm-evaluation-harness, beside those that the preset declares."""
    samples: int = Field(default=3, ge=0)
    """Number of answers to each task that the report prints."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of questions and of sampling."""


Comparison = Literal["<=", ">="]


class Gate(Config):
    """One condition that a release must meet: `figure` compared with `bound` (plus `reference`, where given)."""

    figure: str
    """Name in the table, as `model/figure`, for example `int8/bits_per_byte`."""
    comparison: Comparison
    """Side of the bound on which the figure must lie."""
    bound: float
    """The bound, or what is added to the reference."""
    reference: str | None = None
    """Name of another figure that the bound is relative to."""
    relative: bool = False
    """Whether `bound` is a factor of the reference (1.005 is half a percent above it) instead of a difference."""


class Pair(Config):
    """A model that must not be worse than another one on the same held-out questions, beyond noise."""

    model: str
    """Column of the table, for example `rlhf`."""
    against: str
    """Column that it is held against: `parent`, the model that it was made from, another model of the run, `baseline`,
    or `champion` and `champion_base`, the models of the release in service. Where the run or the registry has no such
    model, the pair is left out, and said so."""
    tasks: bool = True
    """Whether to compare every task that both have a figure of."""
    bits_per_byte: float | None = Field(default=None, ge=0)
    """Most that bits per byte may rise, on each held-out file; empty where they are not compared."""
    gold_reward: float | None = None
    """Least gain of the gold reward of sampled answers, in standard deviations of the instruct model's; that of the
    likeliest answers must not fall. Empty where it is not compared."""


class Margins(Config):
    """Most that a task may lose, by the ending of its figure's name."""

    accuracy: float = Field(default=0.02, ge=0)
    """Share of the questions."""
    multiple_choice: float = Field(default=0.02, ge=0)
    """Share of the questions."""
    exact_match: float = Field(default=0.02, ge=0)
    """Share of the questions."""
    number: float = Field(default=0.02, ge=0)
    """Share of the questions."""
    chrf: float = Field(default=1.0, ge=0)
    """Points of chrF, of a hundred."""
    bits_per_byte: float = Field(default=0.05, ge=0)
    """Bits per byte of the answers, which may rise by so much."""


class PromoteConfig(Config):
    """What a release must show before it is put in service."""

    gates: dict[str, Gate] = Field(default_factory=dict)
    """Conditions on single figures, each by its name."""
    pairs: dict[str, Pair] = Field(default_factory=dict)
    """Comparisons of two models, each by its name: the 95 % interval of the paired difference, corrected for the number
    of tasks that they are compared on, must lie within the margin."""
    margins: Margins = Margins()
    """Most that a task may lose."""
