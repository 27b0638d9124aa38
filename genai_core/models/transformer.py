"""Decoder-only transformer in the layout of Qwen3, so that `transformers` reads its directory as it is.

Shapes: B sequences, T tokens, C hidden size, H query heads, K key-value heads, D head size, V vocabulary.
Parameter names are those of `Qwen3ForCausalLM`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genai_core.config.training import PretrainConfig
from genai_core.models.cache import KeyValueCache, PromptCache
from genai_core.models.flops import flops_per_token
from genai_core.models.language_model import LanguageModel
from genai_core.models.masks import causal_mask


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the model, by the names of a Qwen3 `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    """Whether the embedding is the output matrix too."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def transformer_config(config: PretrainConfig, vocab_size: int) -> TransformerConfig:
    """The sizes of the model that `pretrain` trains."""
    return TransformerConfig(
        vocab_size=vocab_size, hidden_size=config.hidden_size, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.key_value_heads, head_dim=config.head_size,
        intermediate_size=config.feed_forward_size, max_position_embeddings=config.context_length,
        rope_theta=config.rope_theta)


LONGEST_PLAIN = 512
"""Rows of up to this many queries are attended to by plain products on a CPU (docs/LOG.md)."""
BLOCKS = 4
"""Blocks of rows that a CPU attends to one after the other, so that it leaves out most of what no query may see."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, in float32 whatever the precision of x (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def rotary_angles(position_ids: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary embedding (Su et al. 2021, eq. 15) at `position_ids` (B, T): two (B, 1, T, D)."""
    exponents = torch.arange(0, head_dim, 2, device=position_ids.device, dtype=torch.float32) / head_dim
    angles = position_ids[:, None, :, None].float() * (theta ** -exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) of (B, H, T, D) by its angle."""
    first, second = x.chunk(2, dim=-1)
    return (x * cosine + torch.cat([-second, first], dim=-1) * sine).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(QKᵀ/√D + mask) V (Vaswani et al. 2017, eq. 1) for (B, H, T, D) and (B, K, S, D); H is a multiple of K.

    `mask` (B or 1, 1, T, S) is True where a query may attend to a key, never to what is after it; None is causal. On a
    GPU, and for long rows, the fused kernel; for short rows on a CPU plain products in blocks of rows, which are faster
    there (docs/LOG.md). A single query is a plain product everywhere.
    """
    length, keys = query.shape[2], key.shape[2]
    if length > (LONGEST_PLAIN if query.device.type == "cpu" else 1):
        if mask is not None:      # the fused kernels that take a mask take no grouped queries
            groups = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None,
                                              enable_gqa=query.shape[1] != key.shape[1])
    if mask is None:
        mask = causal_mask(length, query.device, keys - length)
    if length != keys or length % BLOCKS:
        return _attend_plainly(query, key, value, mask)
    size = length // BLOCKS
    rows = [_attend_plainly(query[:, :, end - size:end], key[:, :, :end], value[:, :, :end],
                            mask[:, :, end - size:end, :end]) for end in range(size, length + 1, size)]
    return torch.cat(rows, dim=2)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """What `attend` does, by two products: query heads that share a key-value head are further rows of one product."""
    batch, heads, length, size = query.shape
    shared = key.shape[1]
    folded = query.reshape(batch, shared, heads // shared * length, size)
    scores = (folded @ key.transpose(-2, -1)).float().view(batch, shared, heads // shared, length, -1) * size ** -0.5
    weights = torch.softmax(scores.masked_fill(~mask[:, :, None], float("-inf")), dim=-1).to(value.dtype)
    return (weights.view(batch, shared, heads // shared * length, -1) @ value).view(batch, heads, length, size)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with RMS-normalised queries and keys."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | None,
                cache: KeyValueCache | PromptCache | None, only: Tensor | None = None) -> Tensor:
        """What each token takes from those that it may attend to (B, T, C), or token `only[b]` (B,) of row b alone
        (B, 1, C)."""
        batch, length, _ = x.shape
        heads = (batch, length, -1, self.head_dim)
        key = rotate(self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2), *angles)        # (B, K, T, D)
        value = self.v_proj(x).view(heads).transpose(1, 2)                                    # (B, K, T, D)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        if only is not None:
            if mask is None:
                mask = causal_mask(length, x.device, key.shape[2] - length)
            x, mask = of_tokens(x[:, None], only)[:, 0], of_tokens(mask, only)
            angles = of_tokens(angles[0], only), of_tokens(angles[1], only)
            heads = (batch, 1, -1, self.head_dim)
        query = rotate(self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2), *angles)      # (B, H, T, D)
        attended = attend(query, key, value, mask)                                            # (B, H, T, D)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, x.shape[1], -1))


def of_tokens(tensor: Tensor, places: Tensor) -> Tensor:
    """What a tensor (B or 1, 1, T, …) has of token `places[b]` (B,) of row b: (B, 1, 1, …)."""
    rows = torch.arange(len(places), device=places.device)
    return tensor.expand(len(places), -1, -1, -1)[rows, :, places][:, :, None]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, eq. 6): down(silu(gate(x)) · up(x))."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | None,
                cache: KeyValueCache | PromptCache | None, only: Tensor | None = None) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x), angles, mask, cache, only)
        x = (x if only is None else of_tokens(x[:, None], only)[:, 0]) + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class TokenEmbedding(nn.Embedding):
    """Rows of token vectors; the tied head multiplies with the same rows (Press & Wolf 2017)."""

    def project(self, states: Tensor) -> Tensor:
        """Hidden states (…, C) to logits (…, V)."""
        return F.linear(states, self.weight)


class Decoder(nn.Module):
    """Embedding, blocks and final norm: token ids (B, T) to hidden states (B, T, C)."""

    recompute_activations = False
    """Whether training makes the activations of each block again in the backward pass."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = TokenEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor, position_ids: Tensor, mask: Tensor | None,
                cache: KeyValueCache | PromptCache | None, only: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, C), or those of token `only[b]` (B,) of row b alone (B, 1, C): of the last block no more
        than these is made, but for the keys and values of all."""
        recompute = self.recompute_activations and torch.is_grad_enabled() and cache is None
        x = self.embed_tokens(ids)
        angles = rotary_angles(position_ids, self.config.head_dim, self.config.rope_theta)
        for block in self.layers:
            of = only if block is self.layers[-1] else None
            x = checkpoint(block, x, angles, mask, cache, of, use_reentrant=False) if recompute else \
                block(x, angles, mask, cache, of)
        return self.norm(x)


class Transformer(LanguageModel):
    """The language model: a decoder whose embedding also gives the logits, unless there is a matrix of their own."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size,
                                                                         bias=False)
        self.initialize()

    def initialize(self) -> None:
        """Normal weights of standard deviation 0.02; what writes to the residual stream starts at zero, so that every
        block begins as the identity."""
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def hidden(self, ids: Tensor, position_ids: Tensor | None = None, mask: Tensor | None = None,
               cache: KeyValueCache | None = None) -> Tensor:
        length = ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(length, device=ids.device)[None] if cache is None else cache.positions(length)
        if mask is None and cache is not None:
            mask = cache.mask(length)
        states = self.model(ids, position_ids, mask, cache)
        if cache is not None:
            cache.grow(length)
        return states

    def logits(self, states: Tensor) -> Tensor:
        return self.model.embed_tokens.project(states) if self.lm_head is None else self.lm_head(states)

    @property
    def head_weight(self) -> Tensor | None:
        head: nn.Module = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return head.weight if type(head) in (TokenEmbedding, nn.Linear) else None      # type: ignore[return-value]

    def new_cache(self, batch: int, capacity: int) -> KeyValueCache:
        shape = self.config
        return KeyValueCache(shape.num_hidden_layers, batch, shape.num_key_value_heads, capacity, shape.head_dim,
                             like=self.model.norm.weight)

    def prompt_cache(self) -> PromptCache | None:
        return None if self.model.recompute_activations else PromptCache(self.model.norm.weight.device)

    @property
    def context_length(self) -> int:
        return self.config.max_position_embeddings

    def training_flops_per_token(self, length: int) -> float:
        return training_flops_per_token(self.config, length)


def training_flops_per_token(config: TransformerConfig, length: int) -> float:
    """Floating-point operations of the forward and backward pass for one token of a sequence of `length` tokens.

    All parameters count: the embedding multiplies as the head.
    """
    return flops_per_token(parameter_count(config), config.num_hidden_layers,
                           config.num_attention_heads * config.head_dim, length)


def parameter_count(config: TransformerConfig) -> int:
    """Number of parameters, computed without building the model."""
    attention = config.hidden_size * config.head_dim * 2 * (config.num_attention_heads + config.num_key_value_heads)
    block = attention + 3 * config.hidden_size * config.intermediate_size + 2 * config.hidden_size + 2 * config.head_dim
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    return embeddings + config.num_hidden_layers * block + config.hidden_size
