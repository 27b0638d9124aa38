"""Recurrent encoder and decoder (Sutskever et al. 2014; Cho et al. 2014), without and with attention.

Without attention the whole source has to fit into the encoder's last state. With it, each target token takes a mean of
the encoder's states h_s, weighted by how well they match the decoder's state:

    a_s = softmax_s score(d, h_s),   c = Σ a_s h_s

    Bahdanau et al. 2015:  score = vᵀ tanh(W d_{t−1} + U h_s),  d_t = cell([y_{t−1}; c_t], d_{t−1})
    Luong et al. 2015:     score = dᵀ_t W h_s,                  output tanh(V [c_t; d_t])

Shapes: B pairs, S source tokens, T target tokens, E embedding size, H hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.families.encoder_decoder.interface import Decoded, EncoderDecoder
from genai_core.families.recurrent.model import LAYERS, RecurrentLayer, State


@dataclass(frozen=True)
class Seq2SeqShape:
    cell: str
    """`rnn`, `lstm` or `gru`."""
    attention: str
    """`none`, `bahdanau` or `luong`."""
    vocab_size: int
    embedding_size: int
    hidden_size: int
    source_tokens: int
    target_tokens: int


class Memory(NamedTuple):
    """What the decoder knows of the source."""

    states: Tensor
    """Hidden states (B, S, H) of the encoder."""
    attention_mask: Tensor
    """(B, S): False on padding."""
    first: State
    """State in which the decoder begins; each tensor (B, H)."""


class RecurrentSeq2Seq(EncoderDecoder):
    """A bidirectional encoder and a decoder of one recurrent layer each, with or without attention."""

    def __init__(self, shape: Seq2SeqShape):
        super().__init__()
        self.shape = shape
        layer, half = LAYERS[shape.cell], shape.hidden_size // 2
        self.embedding = nn.Embedding(shape.vocab_size, shape.embedding_size)
        context = shape.hidden_size if shape.attention == "bahdanau" else 0
        self.encoder_layers = nn.ModuleList([layer(shape.embedding_size, half), layer(shape.embedding_size, half)])
        self.decoder_layers = nn.ModuleList([layer(shape.embedding_size + context, shape.hidden_size)])
        if shape.attention == "bahdanau":
            self.query = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
            self.key = nn.Linear(shape.hidden_size, shape.hidden_size)
            self.score = nn.Linear(shape.hidden_size, 1, bias=False)
        elif shape.attention == "luong":
            self.match = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
            self.combine = nn.Linear(2 * shape.hidden_size, shape.hidden_size)
        self.head = nn.Linear(shape.hidden_size, shape.vocab_size)

    def encode(self, source: Tensor, attention_mask: Tensor) -> Memory:
        """Read the source from both ends (Schuster & Paliwal 1997); the decoder begins in the last states of both."""
        embedded = self.embedding(source)
        forwards, backwards = self.encoder_layers
        forward_states, forward_last = forwards(embedded, None, attention_mask)
        backward_states, backward_last = backwards(embedded.flip(1), None, attention_mask.flip(1))
        first = tuple(torch.cat(both, dim=1) for both in zip(forward_last, backward_last, strict=True))
        return Memory(torch.cat([forward_states, backward_states.flip(1)], dim=2), attention_mask, first)

    def decode(self, inputs: Tensor, memory: Memory, state: State | None = None) -> Decoded:
        state = memory.first if state is None else state
        embedded = self.embedding(inputs)
        if self.shape.attention == "bahdanau":
            return self._decode_bahdanau(embedded, memory, state)
        hidden, state = self.decoder_layers[0](embedded, state)
        if self.shape.attention == "none":
            return Decoded(self.head(hidden), state, None)
        scores = hidden @ self.match(memory.states).transpose(1, 2)
        weights = _softmax(scores, memory.attention_mask)
        combined = torch.tanh(self.combine(torch.cat([weights @ memory.states, hidden], dim=2)))
        return Decoded(self.head(combined), state, weights)

    def _decode_bahdanau(self, embedded: Tensor, memory: Memory, state: State) -> Decoded:
        """One step after the other: the context of a step, which depends on the state before, is part of its input."""
        keys, cell = self.key(memory.states), self.decoder_layers[0]
        assert isinstance(cell, RecurrentLayer)
        outputs, attention = [], []
        for part in embedded.unbind(1):
            scores = self.score(torch.tanh(self.query(state[0])[:, None] + keys))[:, :, 0]
            weights = _softmax(scores[:, None], memory.attention_mask)
            context = (weights @ memory.states)[:, 0]
            state = cell.step(F.linear(torch.cat([part, context], dim=1), cell.weight_ih, cell.bias_ih), state)
            outputs.append(state[0])
            attention.append(weights)
        return Decoded(self.head(torch.stack(outputs, dim=1)), state, torch.cat(attention, dim=1))


def _softmax(scores: Tensor, attention_mask: Tensor) -> Tensor:
    """Softmax of scores (B, T, S) over the source tokens that are no padding."""
    masked = scores.float().masked_fill(~attention_mask[:, None], float("-inf"))
    return torch.softmax(masked, dim=2).to(scores.dtype)
