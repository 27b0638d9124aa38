"""Configs of the training stages: pretrain, instruct, reward, rlhf."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genai_core.config.base import Config


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


class InstructConfig(TrainConfig):
    """Fine-tune the base model on chats, with loss on the assistant's tokens only."""

    epochs: float = Field(default=1.0, gt=0, le=100)
    """Passes over the mixture."""
    context_length: int = Field(default=256, ge=32)
    """Length of a packed row, in tokens; a longer chat loses its beginning."""
    text_fraction: float = Field(default=0.25, ge=0, lt=1)
    """Share of the packed rows, and of the loss, that is plain training text, so that the model does not forget it."""


class RewardConfig(TrainConfig):
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
    """Two of a source form a training pair when their ratings differ by at least this much."""

    @model_validator(mode="after")
    def pairs_stay_together(self) -> "RewardConfig":
        if (self.batch_size // self.accumulation_steps) % 2:
            raise ValueError(f"a micro-batch of {self.batch_size // self.accumulation_steps} is odd, and two answers "
                             "of a preference belong together")
        return self


class RlhfConfig(TrainConfig):
    """Raise the reward of the policy's answers, with a KL penalty for leaving the instruct model."""

    steps: int = Field(ge=1)
    """Optimizer steps, each on completions of its own."""
    group_size: int = Field(default=8, ge=2)
    """Completions of each prompt; batch_size counts completions and is a multiple of it."""
    tasks: tuple[str, ...] = ()
    """Tasks whose questions are the prompts; empty for those of preferences, else of chats, else of any."""
    completion_tokens: int = Field(default=32, ge=4)
    """Longest completion, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature, at which the log-probabilities of training are taken too."""
    kl_coefficient: float = Field(default=0.05, ge=0)
    """Weight β of the KL penalty to the instruct model."""
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
    evaluation_prompts: int = Field(default=64, ge=8)
    """Number of prompts from the validation split on which reward and KL are measured."""

    @property
    def prompts(self) -> int:
        """Number of prompts that training samples completions of."""
        return self.steps * (self.batch_size // self.group_size)

    @model_validator(mode="after")
    def groups_fill_the_batch(self) -> "RlhfConfig":
        if (self.batch_size // self.accumulation_steps) % self.group_size:
            raise ValueError(f"a micro-batch of {self.batch_size // self.accumulation_steps} completions is not a "
                             f"multiple of group_size {self.group_size}")
        if self.replay_rows % self.accumulation_steps:
            raise ValueError(f"replay_rows {self.replay_rows} is not a multiple of accumulation_steps "
                             f"{self.accumulation_steps}")
        return self
