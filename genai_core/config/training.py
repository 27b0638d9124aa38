"""Configs of the training stages: pretrain, instruct, reward, rlhf."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from genai_core.config.base import Config
from genai_core.config.rewards import VERIFYING, AnyReward, RewardModelReward, RewardName


class TrainConfig(Config):
    """What the training loop needs, whatever the objective."""

    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, data order and sampling."""
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    """`muon` trains the matrices of the layers with Muon and the rest with AdamW; `sgd` has Nesterov momentum 0.9."""
    learning_rate: float = Field(gt=0, le=10)
    """Peak learning rate of AdamW or SGD."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's averages of the gradient and of its square."""
    matrix_learning_rate: float = Field(default=0.02, gt=0, le=1)
    """Peak learning rate of Muon; without effect on the other optimizers."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled weight decay of the matrices."""
    warmup_fraction: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps, at the start, in which the learning rate rises linearly from 0."""
    decay_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps, at the end, in which the learning rate falls linearly."""
    final_learning_rate_fraction: float = Field(default=0.02, ge=0, le=1)
    """Learning rate of the last step, as a share of the peak."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient: a longer gradient is scaled down to it."""
    batch_size: int = Field(ge=1)
    """Examples in one optimizer step."""
    accumulation_steps: int = Field(default=1, ge=1)
    """Micro-batches that one optimizer step is cut into, to save memory; the result is the same up to rounding."""
    on_non_finite: Literal["stop", "skip"] = "skip"
    """What to do with a step whose loss or gradient is not finite, or whose loss explodes: stop, or skip it; after ten
    in a row training goes back to a checkpoint and past their data, twice at most."""
    skip_above_deviations: float = Field(default=6.0, ge=0)
    """A loss explodes when it is so many standard deviations above the mean of the last 128, and half that mean above
    it; 0 for never."""

    @model_validator(mode="after")
    def micro_batches_divide_the_batch(self) -> "TrainConfig":
        if self.batch_size % self.accumulation_steps:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulation_steps "
                             f"{self.accumulation_steps}")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas {self.adam_betas} are not both at least 0 and below 1")
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("warmup_fraction and decay_fraction add up to more than 1")
        return self


ALL_LINEAR = "all-linear"
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a block of the transformer that `pretrain` makes."""


class LoraConfig(Config):
    """Train low-rank adapters beside linear layers, whose own weights stay as they are (Hu et al. 2022)."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank r of what is added to each weight matrix."""
    alpha: float = Field(default=32.0, gt=0)
    """What is added is multiplied by alpha / rank."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Names of the linear layers that get an adapter, such as `q_proj`; `all-linear` for all but the output head."""
    bits: Literal[4] | None = None
    """4 to hold the weights of those layers in four bits while adapters are trained (Dettmers et al. 2023); empty to
    hold them as they are."""

    @field_validator("targets", mode="before")
    @classmethod
    def one_name_is_a_list(cls, targets: Any) -> Any:
        return (targets,) if isinstance(targets, str) else targets

    @property
    def of_all(self) -> bool:
        return ALL_LINEAR in self.targets

    @model_validator(mode="after")
    def something_is_trained(self) -> "LoraConfig":
        if not self.targets:
            raise ValueError(f"targets name no layer, so nothing would be trained; write {ALL_LINEAR} for all")
        return self


class FineTuneConfig(TrainConfig):
    """What the stages share that go on from a model."""

    lora: LoraConfig | None = None
    """Low-rank adapters in place of all weights; empty for all weights."""


class LanguageModelConfig(TrainConfig):
    """What every language model's training on token files needs."""

    context_length: int = Field(ge=16, le=131_072)
    """Length of a training sequence, in tokens."""
    tokens: int = Field(ge=1024)
    """Number of tokens to train on."""
    max_epochs: float | None = Field(default=None, gt=0)
    """Most passes over the training tokens, so that a small text is not learned by heart; empty for no such limit."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """How often the text of a source comes where that of others comes once: 2 for twice, 0 for never."""
    evaluations: int = Field(default=5, ge=1)
    """Number of times that the validation loss is measured, the last time at the end."""
    validation_tokens: int = Field(default=32_768, ge=1024)
    """Most tokens of each validation source for such a measurement."""


class PretrainConfig(LanguageModelConfig):
    """Train the base model on the token files."""

    layers: int = Field(ge=1, le=200)
    """Number of transformer blocks."""
    hidden_size: int = Field(ge=16)
    """Width of the residual stream."""
    heads: int = Field(ge=1)
    """Number of query heads."""
    key_value_heads: int = Field(ge=1)
    """Number of key and value heads; fewer than `heads` is grouped-query attention."""
    head_size: int = Field(default=64, ge=8)
    """Width of a head; even, for the rotary embedding."""
    feed_forward_size: int = Field(ge=16)
    """Inner width of the SwiGLU feed-forward network."""
    rope_theta: float = Field(default=10_000.0, gt=1)
    """Base of the rotary position embedding."""

    @model_validator(mode="after")
    def shapes_fit(self) -> "PretrainConfig":
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of key_value_heads {self.key_value_heads}")
        if self.head_size % 2:
            raise ValueError(f"head_size {self.head_size} is odd; the rotary embedding turns pairs of dimensions")
        return self


class InstructConfig(FineTuneConfig):
    """Fine-tune the base model on chats, with loss on the assistant's tokens only."""

    epochs: float = Field(default=1.0, gt=0, le=100)
    """Passes over the mixture."""
    context_length: int = Field(default=256, ge=32)
    """Length of a packed row, in tokens; a longer chat loses its beginning."""
    turns: Literal["all", "last"] = "all"
    """Whether all answers of a chat are learned, or the last one alone; the others are then read as the question is."""
    text_fraction: float = Field(default=0.25, ge=0, lt=1)
    """Share of the packed rows, and of the loss, that is plain training text, so that the model does not forget it."""


class RewardConfig(FineTuneConfig):
    """Train a reward model, a scalar head on the instruct model, to order texts and answers as people did."""

    epochs: float = Field(default=2.0, gt=0, le=100)
    """Passes over the ratings and preferences."""
    context_length: int = Field(ge=16)
    """Longest text or conversation, in tokens, a preset's own or that of instruct; a longer one loses its beginning."""
    token_dropout: float = Field(default=0.15, ge=0, lt=1)
    """Share of a training text's tokens that are replaced by a blank at random, so that no single word decides."""
    sources: tuple[str, ...] = ()
    """Sources of ratings and preferences, or parts of one such as `vader/movie`; empty for all there are."""
    min_rating_gap: float = Field(default=0.5, gt=0)
    """Two of a source form a training pair when their ratings differ by at least this much. The answers of a preference
    always do, and two texts with different labels."""
    objective: Literal["bradley_terry", "regression"] = "bradley_terry"
    """`bradley_terry` learns which of two is better, `regression` the rating itself, in deviations of its source."""
    margin: float = Field(default=0.0, ge=0)
    """Of Bradley-Terry: by how much two rewards are to differ for each unit by which their ratings do. The two answers
    of a preference are one unit apart."""
    centring: float = Field(default=0.0, ge=0)
    """Of Bradley-Terry: weight of the squared sum of two rewards, which keeps rewards around 0."""

    @model_validator(mode="after")
    def pairs_stay_together(self) -> "RewardConfig":
        if (self.batch_size // self.accumulation_steps) % 2:
            raise ValueError(f"a micro-batch of {self.batch_size // self.accumulation_steps} is odd, and two answers "
                             "of a preference belong together")
        return self

    @model_validator(mode="after")
    def regression_knows_no_pairs(self) -> "RewardConfig":
        for name in ("margin", "centring"):
            if self.objective == "regression" and getattr(self, name):
                raise ValueError(f"{name} {getattr(self, name)} is of pairs, which regression has none of; set it to 0")
        return self


class PpoConfig(Config):
    """What proximal policy optimisation needs beside what all methods do."""

    epochs: int = Field(default=4, ge=1, le=64)
    """Optimizer steps on each batch of completions; `rlhf.steps` counts all of them."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Discount γ of the rewards of later tokens."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Weight λ of generalised advantage estimation: 1 takes what came of it, 0 the value of the next token."""
    value_coefficient: float = Field(default=0.1, ge=0)
    """Weight of the value's loss beside the policy's."""
    value_clip: float = Field(default=0.2, gt=0)
    """Range around the value of when the completions were sampled, outside of which the value is clipped."""


class DpoConfig(Config):
    """What direct preference optimisation needs beside what all methods do."""

    variant: Literal["sigmoid", "ipo", "kto"] = "sigmoid"
    """The loss: DPO's own, IPO, or KTO, which judges each answer by itself."""
    pairs: Literal["sampled", "given"] = "sampled"
    """`sampled` has the best and the worst of each prompt's completions by the reward; `given` the preferences of the
    data, of the sources of `reward.sources`."""
    beta: float = Field(default=0.1, gt=0)
    """Weight β of staying near the instruct model: less of it lets the policy go farther (IPO's τ)."""


class MonitorConfig(Config):
    """When training is to end at its last good state: figures of sampled answers to held-out prompts."""

    every_steps: int = Field(default=10, ge=1)
    """Steps between two looks; each good one is kept as a checkpoint."""
    kl_budget: float | None = Field(default=30.0, gt=0)
    """Most KL from the instruct model, in nats a completion; empty for no limit, as for all of these."""
    entropy_floor: float | None = Field(default=0.05, gt=0, lt=1)
    """Least entropy of a token, as a share of the instruct model's."""
    length_drift: float | None = Field(default=4.0, gt=1)
    """Most times that answers may be longer than the instruct model's, or shorter."""
    distinct_floor: float | None = Field(default=0.5, gt=0, lt=1)
    """Least share of different word pairs in all answers together (distinct-2), as a share of the instruct model's."""
    gold_drop: float | None = Field(default=None, gt=0)
    """Most that the gold reward may fall below its highest point while the reward is above that of then, in standard
    deviations of the instruct model's answers. Empty for not measuring it: it costs the time of learning it, and what
    stops a training is no longer quite independent of it."""


class RlhfConfig(FineTuneConfig):
    """Raise the reward of the policy's answers, with a KL penalty for leaving the instruct model."""

    method: Literal["grpo", "ppo", "dpo", "best_of_n"] = "grpo"
    """`grpo` and `ppo` follow the gradient of the reward, `dpo` prefers one answer to another, `best_of_n` learns the
    best of `group_size` completions (docs/rlhf.md tells when to take which)."""
    ppo: PpoConfig = PpoConfig()
    """Of the method ppo alone."""
    dpo: DpoConfig = DpoConfig()
    """Of the method dpo alone."""
    steps: int = Field(ge=1)
    """Optimizer steps, each on completions of its own, but for ppo."""
    group_size: int = Field(default=8, ge=2)
    """Completions of each prompt; ppo has one. batch_size counts completions, two for each given preference, and is a
    multiple of it."""
    tasks: tuple[str, ...] = ()
    """Tasks whose questions are the prompts; empty for those of preferences, else of chats, else of any, and for those
    of problems where a reward verifies answers."""
    rewards: dict[RewardName, AnyReward] = Field(default={"reward_model": RewardModelReward()}, min_length=1)
    """What is raised, each by its name: the sum of all, by their weights. The reward model alone where nothing is said.
    """
    completion_tokens: int = Field(default=32, ge=4)
    """Longest completion, in tokens."""
    sampler: Literal["own", "vllm"] = "own"
    """Who samples: this project's engine, or a vLLM server beside it, which has an environment of its own
    (docs/rlhf.md)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature, at which the log-probabilities of training are taken too."""
    kl_coefficient: float = Field(default=0.05, ge=0)
    """Weight β of the KL penalty to the instruct model, of grpo and ppo; dpo has its own, best_of_n none. With 0 the KL
    is measured on held-out prompts alone."""
    kl_target: float = Field(default=6.0, gt=0)
    """KL from which the weight grows with the fourth power of KL / target, at most a hundredfold; nats a completion."""
    truncation_penalty: float = Field(default=1.0, ge=0)
    """What is taken off the reward of a completion that is cut off at `completion_tokens`."""
    replay_rows: int = Field(default=8, ge=0)
    """Rows of the fine-tuning data, chats and plain text, that each step reads beside the completions."""
    replay_coefficient: float = Field(default=1.0, ge=0)
    """Weight of their mean KL from what the instruct model predicts there, beside the mean over the completions."""
    clip_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Range ε of the probability ratio, 1 − ε to 1 + ε, outside of which it is clipped."""
    monitors: MonitorConfig = MonitorConfig()
    """Signs that end training at its last good state."""
    evaluation_prompts: int = Field(default=64, ge=8)
    """Number of prompts from the validation split on which reward and KL are measured."""

    @property
    def completions_of_each(self) -> int:
        """Number of completions that are sampled of a prompt."""
        return 1 if self.method == "ppo" else self.group_size

    @property
    def batches(self) -> int:
        """Number of batches of completions, or of preferences, that the steps take."""
        return -(-self.steps // self.ppo.epochs) if self.method == "ppo" else self.steps

    @property
    def prompts_of_a_batch(self) -> int:
        return self.batch_size // (2 if self.takes_given_pairs else self.completions_of_each)

    @property
    def prompts(self) -> int:
        """Number of prompts that training samples completions of."""
        return 0 if self.takes_given_pairs else self.batches * self.prompts_of_a_batch

    def for_key(self) -> dict[str, Any]:
        """What is said of methods that are not taken changes nothing."""
        others = {"ppo", "dpo"} - {self.method}
        return {name: value for name, value in super().for_key().items() if name not in others}

    @property
    def takes_given_pairs(self) -> bool:
        """Whether it learns from preferences of the data, and samples nothing."""
        return self.method == "dpo" and self.dpo.pairs == "given"

    @property
    def needs_reward_model(self) -> bool:
        return any(reward.kind == "reward_model" for reward in self.rewards.values())

    @property
    def verifying_rewards(self) -> tuple[str, ...]:
        """Names of the rewards that compare an answer with what its problem says."""
        return tuple(name for name, reward in self.rewards.items() if reward.kind in VERIFYING)

    @model_validator(mode="after")
    def groups_fill_the_batch(self) -> "RlhfConfig":
        given = self.takes_given_pairs
        micro_batch = self.batch_size // self.accumulation_steps
        if given and micro_batch % 2:
            raise ValueError(f"a micro-batch of {micro_batch} completions is odd, and two answers of a preference "
                             "belong together")
        if not given and micro_batch % self.completions_of_each:
            raise ValueError(f"a micro-batch of {micro_batch} completions is not a multiple of group_size "
                             f"{self.group_size}")
        if self.method == "dpo" and self.dpo.variant == "kto" and self.prompts_of_a_batch < 2:
            raise ValueError(f"dpo.variant kto compares with answers to other prompts, and a batch_size of "
                             f"{self.batch_size} has one prompt alone")
        if self.replay_rows % self.accumulation_steps:
            raise ValueError(f"replay_rows {self.replay_rows} is not a multiple of accumulation_steps "
                             f"{self.accumulation_steps}")
        return self
