"""Decoder-only transformer in the layout of Qwen3, so that `transformers` reads its directory as it is.

Shapes: B sequences, T tokens, C hidden size, H query heads, K key-value heads, D head size, V vocabulary.
Parameter names are those of `Qwen3ForCausalLM`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.models.language_model import LanguageModel


@dataclass(frozen=True)
class TransformerConfig:
    """Field names are those of a Qwen3 `config.json`."""

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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, in float32 (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        scale = torch.rsqrt(x_float.pow(2).mean(-1, keepdim=True) + self.eps)
        return (x_float * scale * self.weight).to(x.dtype)


def rotary_angles(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary embedding (Su et al. 2021, eq. 15) at `positions` (B, T): two (B, 1, T, D)."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * (theta ** -exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) of (B, H, T, D) by its angle."""
    first, second = x.chunk(2, dim=-1)
    return (x * cosine + torch.cat([-second, first], dim=-1) * sine).to(x.dtype)


class KeyValueCache:
    """Keys and values of the tokens seen so far, preallocated: two (B, K, capacity, D) a layer."""

    def __init__(self, config: TransformerConfig, batch: int, capacity: int, device: torch.device, dtype: torch.dtype):
        shape = (config.num_hidden_layers, 2, batch, config.num_key_value_heads, capacity, config.head_dim)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self.capacity = capacity

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, K, T, D) after what is there; keys and values of everything so far."""
        end = self.length + key.shape[2]
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.capacity}")
        self.values[layer, 0, :, :, self.length:end] = key
        self.values[layer, 1, :, :, self.length:end] = value
        return self.values[layer, 0, :, :, :end], self.values[layer, 1, :, :, :end]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(QKᵀ/√D + mask) V (Vaswani et al. 2017, eq. 1) for (B, H, T, D) and (B, K, S, D); H is a multiple of K.

    `mask` is True where a query may look, broadcastable to (B, 1, T, S); None is causal with T = S.
    On a GPU, and for long rows, the fused kernel; for short rows on a CPU plain products, whose backward is 1.4 times
    as fast there (docs/LOG.md).
    """
    query_length, key_length = query.shape[2], key.shape[2]
    if query.device.type != "cpu" or query_length > 512:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None,
                                              enable_gqa=True)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(-2, -1)).float() * query.shape[-1] ** -0.5
    if mask is None:
        mask = torch.ones(query_length, key_length, dtype=torch.bool, device=query.device).tril()
    weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
    return weights.to(value.dtype) @ value


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with RMS-normalised queries and keys."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | None,
                cache: KeyValueCache | None) -> Tensor:
        batch, length, _ = x.shape
        heads = (batch, length, -1, self.head_dim)
        query = rotate(self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2), *angles)      # (B, H, T, D)
        key = rotate(self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2), *angles)        # (B, K, T, D)
        value = self.v_proj(x).view(heads).transpose(1, 2)                                    # (B, K, T, D)
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        attended = attend(query, key, value, mask)                                            # (B, H, T, D)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, length, -1))


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
    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor | None,
                cache: KeyValueCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class TokenEmbedding(nn.Embedding):
    """Rows of token vectors; the tied head multiplies with the same rows (Press & Wolf 2017)."""

    def project(self, states: Tensor) -> Tensor:
        """Hidden states (…, C) to logits (…, V)."""
        return F.linear(states, self.weight)


class Decoder(nn.Module):
    """Embedding, blocks and final norm: token ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = TokenEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        x = self.embed_tokens(ids)
        angles = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        for block in self.layers:
            x = block(x, angles, mask, cache)
        return self.norm(x)


class Transformer(LanguageModel):
    """The language model: a decoder whose embedding also gives the logits."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.initialize()

    def initialize(self) -> None:
        """Normal weights of standard deviation 0.02; what writes to the residual stream starts at zero, so that every
        block begins as the identity."""
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def hidden(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
               cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states (B, T, C) of token ids (B, T).

        `positions` (B, T) default to 0, 1, 2, … after what the cache holds. `mask` (B, 1, T, S) is True where a query
        may look; the default is causal. With a cache, S counts the tokens in it too, and its length grows by T.
        """
        start = cache.length if cache is not None else 0
        if positions is None:
            positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
        if mask is None and cache is not None:
            seen = torch.arange(start + ids.shape[1], device=ids.device)
            mask = (seen[None, :] <= seen[start:, None])[None, None]
        states = self.model(ids, positions, mask, cache)
        if cache is not None:
            cache.length += ids.shape[1]
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Hidden states (…, C) to logits (…, V)."""
        return self.model.embed_tokens.project(states)

    def new_cache(self, batch: int, capacity: int) -> KeyValueCache:
        weight = self.model.norm.weight
        return KeyValueCache(self.config, batch, capacity, weight.device, weight.dtype)

    @property
    def context_length(self) -> int:
        return self.config.max_position_embeddings

    def training_flops_per_token(self, length: int) -> float:
        return training_flops_per_token(self.config, length)


def training_flops_per_token(config: TransformerConfig, length: int) -> float:
    """Floating-point operations of forward and backward for one token in a row of `length`: 6 N + 12 L d T
    (Kaplan et al. 2020; PaLM appendix B), N the parameters that multiply, the tied head counted once."""
    return 6 * parameter_count(config) + 12 * config.num_hidden_layers * config.num_attention_heads \
        * config.head_dim * length


def parameter_count(config: TransformerConfig) -> int:
    """Parameters of the model, computed without building it."""
    attention = config.hidden_size * config.head_dim * 2 * (config.num_attention_heads + config.num_key_value_heads)
    block = attention + 3 * config.hidden_size * config.intermediate_size + 2 * config.hidden_size + 2 * config.head_dim
    return config.vocab_size * config.hidden_size + config.num_hidden_layers * block + config.hidden_size
