"""What a training stage will take, computed from its config before anything is spent."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from genai_core.config.pipeline import PipelineConfig
from genai_core.config.tasks import Lesson
from genai_core.config.training import ALL_LINEAR, LINEAR_LAYERS
from genai_core.hardware import choose_device
from genai_core.models.adapters import adapter_parameters, bytes_spared, share_of_training
from genai_core.models.contexts import require_context
from genai_core.models.transformer import (
    LONGEST_PLAIN,
    Transformer,
    TransformerConfig,
    parameter_count,
    training_flops_per_token,
    transformer_config,
)
from genai_core.training.objectives.cross_entropy import MANY_LOGITS

TOKENS_OF_A_CHAT = 70
"""Mean length assumed for the chats of the mixture, before they can be counted."""
CHATS_OF_A_TASK = 5_000
"""Number of chats assumed of a task that takes all there are, before they are collected."""
JUDGEMENTS = 9_000
"""Number of ratings and preferences assumed before they are collected."""
PROMPT_TOKENS = 24
"""Mean length assumed for the prompts of RLHF, before they can be counted."""


@dataclass(frozen=True)
class Estimate:
    """What a training stage takes."""

    parameters: int
    trainable_parameters: int
    """Number of those that training changes."""
    tokens: int
    """Tokens of all steps."""
    flops: float
    """Floating-point operations of all steps."""
    memory_bytes: int
    """Peak memory, in bytes."""


def estimate(stage: str, config: PipelineConfig, counts: Mapping[str, float] = MappingProxyType({}),
             base: TransformerConfig | None = None) -> Estimate | None:
    """What the training stage `stage` takes; None for a stage that trains nothing, and where the base comes from
    outside and its sizes are not known yet. `counts` are the metrics of `clean`, where the data is there. Raises
    InputError where the stage does not fit into the context of the base."""
    if config.base.given and base is None:
        return None
    if base and stage in ("pretrain", "instruct", "reward", "rlhf"):
        require_context(stage, getattr(config, stage), base.max_position_embeddings)
    shape = base or transformer_config(config.pretrain, config.tokenize.vocab_size)
    parameters, replayed, copies = parameter_count(shape), 0, 0
    if stage == "pretrain":
        rows, length = config.pretrain.batch_size, config.pretrain.context_length
        tokens, passes = config.pretrain.tokens, 1.0
    elif stage == "instruct":
        mixture = config.instruct
        rows, length = mixture.batch_size, mixture.context_length
        chats = sum(_examples(lesson, counts) for lesson in config.mixture.lessons.values())
        tokens, passes = int(chats * TOKENS_OF_A_CHAT * mixture.epochs), 1.0
    elif stage == "reward":
        rows, length = config.reward.batch_size, config.reward.context_length
        tokens, passes = int((_judgements(config, counts) or JUDGEMENTS) * config.reward.epochs * length), 1.0
    elif stage == "rlhf":
        rows, length = config.rlhf.batch_size, PROMPT_TOKENS + config.rlhf.completion_tokens
        tokens = config.rlhf.steps * rows * length
        # sampling, reward and reference of a batch take about as much as training on it, the reference alone a third
        passes = 1 + (1 / 3 if config.rlhf.takes_given_pairs else config.rlhf.batches / config.rlhf.steps)
        replayed = config.rlhf.replay_rows * config.instruct.context_length
        copies = (config.rlhf.lora is None) + config.rlhf.needs_reward_model      # the reference, and the reward model
    else:
        return None
    memory, trainable, spared, whole = 4 * copies * parameters, parameters, 0, 4 * (1 + copies) * parameters
    if lora := getattr(getattr(config, stage), "lora", None):
        if base and not {*lora.targets} <= {ALL_LINEAR, *LINEAR_LAYERS}:      # other names
            lora = lora.model_copy(update={"targets": (ALL_LINEAR,)})
        with torch.device("meta"):
            model = Transformer(shape)
            trainable, spared = adapter_parameters(model, lora), bytes_spared(model, lora)
        parameters += trainable
    # weights, and of those that are trained gradients and two optimizer slots, in float32
    in_micro_batch = rows // getattr(config, stage).accumulation_steps * length
    memory += 4 * parameters + 12 * trainable + activation_bytes(shape, in_micro_batch, length,
                                                                 logits=stage != "reward")
    flops = passes * tokens * training_flops_per_token(shape, length) * share_of_training(trainable, parameters)
    if replayed:      # the policy and, forward alone, the reference read them; of their logits there are five copies
        rows_of_micro_batch = replayed // config.rlhf.accumulation_steps
        memory += rows_of_micro_batch * (_bytes_per_token(shape, length) + 20 * shape.vocab_size)
        flops += 4 / 3 * config.rlhf.steps * replayed * training_flops_per_token(shape, config.instruct.context_length)
    memory -= spared
    wanted = config.runtime.device
    if spared and wanted in ("auto", "cpu") and choose_device(wanted).type == "cpu":      # it is read and merged there
        memory = max(memory, whole)
    return Estimate(parameters, trainable, tokens, flops, memory)


def activation_bytes(shape: TransformerConfig, tokens: int, length: int, recompute: bool = False, logits: bool = True
                     ) -> int:
    """What the backward pass of a micro-batch reads, in bytes, with `recompute` of all but one block only the input:
    each layer's intermediate results in half precision, and the `logits` three times, unless they are made in pieces.
    """
    many = tokens * shape.vocab_size if logits else 0
    kept = _bytes_per_token(shape, length)
    if recompute:
        kept = kept // shape.num_hidden_layers + 2 * shape.num_hidden_layers * shape.hidden_size
    return tokens * kept + 10 * (many if many <= MANY_LOGITS else 0)


def _bytes_per_token(shape: TransformerConfig, length: int) -> int:
    """Of all layers; the fused kernels of long rows keep no attention weights."""
    attention = 6 * shape.num_attention_heads * (length if length <= LONGEST_PLAIN else 1)
    return shape.num_hidden_layers * (20 * shape.hidden_size + 8 * shape.intermediate_size + attention)


def _examples(lesson: Lesson, counts: Mapping[str, float]) -> float:
    if lesson.examples is not None:
        return lesson.examples
    known = [counts.get(f"train/{lesson.content}/{source}", 0) for source in lesson.sources]
    return sum(known) or CHATS_OF_A_TASK


def _judgements(config: PipelineConfig, counts: Mapping[str, float]) -> float:
    """Ratings, answers of preferences, and labelled texts of sources that are named."""
    sources = config.reward.sources
    if not sources:
        return counts.get("ratings_kept", 0) + 2 * counts.get("preferences_kept", 0)
    labelled = 1 - config.evaluate.gold.fraction if config.evaluate.gold.label else 0.0
    return sum(share * counts.get(f"train/{table}/{source}", 0) for source in sources
               for table, share in (("ratings", 1.0), ("preferences", 2.0), ("labelled", labelled)))
