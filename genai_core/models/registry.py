"""Architectures by the name that `pretrain.architecture` gives."""

from genai_core.config.training import PretrainConfig
from genai_core.models.language_model import LanguageModel
from genai_core.models.transformer import Transformer, TransformerConfig


def build(config: PretrainConfig, vocab_size: int) -> LanguageModel:
    """A new model with random weights; the caller seeds the generator."""
    return Transformer(transformer_config(config, vocab_size))


def transformer_config(config: PretrainConfig, vocab_size: int) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=vocab_size, hidden_size=config.hidden_size, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.key_value_heads, head_dim=config.head_size,
        intermediate_size=config.feed_forward_size, max_position_embeddings=config.context_length,
        rope_theta=config.rope_theta)
