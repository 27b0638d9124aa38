"""Recurrent cells written out, and the language model of them: embedding → recurrent layers → linear.

Each layer holds its weights as torch.nn.RNN, LSTM and GRU do, and gives the same numbers; on a GPU their kernels run.

Shapes: B sequences, T tokens, I inputs, H hidden size, G gates (blocks of H rows in a weight), V vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.models.flops import flops_per_token, matrix_weights
from genai_core.models.language_model import LanguageModel

State = tuple[Tensor, ...]
"""What a cell carries from one step to the next: (h,), or (h, c) for the LSTM; each (B, H)."""


class RecurrentLayer(nn.Module, ABC):
    """One layer over time: the products with the inputs of all steps at once, then one step after the other.

    The steps are written out here. PyTorch's kernel, which is cuDNN's on a GPU, does the same with the same weights; it
    runs where it is faster.
    """

    gates: int
    """Blocks of `hidden_size` rows in each weight."""
    states: int = 1
    """Number of tensors in the state."""
    fused: bool | None = None
    """Whether to run PyTorch's kernel; None runs it on a GPU, and on a CPU where `fused_on_cpu` says so."""
    fused_on_cpu: bool = False
    """Whether the kernel is faster on a CPU too, for more than one step (docs/LOG.md)."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(self.gates * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(self.gates * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(self.gates * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(self.gates * hidden_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -hidden_size ** -0.5, hidden_size ** -0.5)

    @abstractmethod
    def step(self, projected: Tensor, state: State) -> State:
        """The next state from `projected` = W_ih x_t + b_ih (B, G·H) and the state before."""

    @abstractmethod
    def run_fused(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states (B, T, H) for inputs (B, T, I), and the last state, by PyTorch's kernel."""

    def forward(self, inputs: Tensor, state: State | None = None, attention_mask: Tensor | None = None
                ) -> tuple[Tensor, State]:
        """Hidden states (B, T, H) for inputs (B, T, I), and the last state.

        Where `attention_mask` (B, T) is False, the state stays as it was.
        """
        if state is None:
            state = self.initial(inputs)
        if attention_mask is None and self._runs_fused(inputs):      # the kernel knows no padding between tokens
            # cuDNN would take autocast for float16, in which gradients vanish that nobody scales
            autocast = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
            with torch.autocast(inputs.device.type, enabled=autocast):
                return self.run_fused(inputs.float(), tuple(part.float() for part in state))
        projected = F.linear(inputs, self.weight_ih, self.bias_ih).unbind(1)
        outputs = []
        for time, part in enumerate(projected):
            following = self.step(part, state)
            if attention_mask is not None:
                is_token = attention_mask[:, time, None]
                following = tuple(torch.where(is_token, new, old) for new, old in zip(following, state, strict=True))
            state = following
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def initial(self, inputs: Tensor) -> State:
        """The state before the first of inputs (B, T, I): zero."""
        return tuple(inputs.new_zeros(len(inputs), self.hidden_size) for _ in range(self.states))

    def _runs_fused(self, inputs: Tensor) -> bool:
        if self.fused is not None:
            return self.fused
        return inputs.device.type != "cpu" or (self.fused_on_cpu and inputs.shape[1] > 1)

    @property
    def _kernel_arguments(self) -> tuple[Any, ...]:
        """What PyTorch's kernels are given after inputs and state: weights, biases, one layer, no dropout, gradients
        wanted, one direction, batch first."""
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        return weights, True, 1, 0.0, True, False, True


class ElmanLayer(RecurrentLayer):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh) (Elman 1990).

    The gradient over d steps is a product of d Jacobians W_hhᵀ diag(1 − h²): it vanishes or explodes (Bengio et al.
    1994).
    """

    gates = 1

    def step(self, projected: Tensor, state: State) -> State:
        return (torch.tanh(projected + F.linear(state[0], self.weight_hh, self.bias_hh)),)

    def run_fused(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden_states, last = torch._VF.rnn_tanh(inputs, state[0][None], *self._kernel_arguments)
        return hidden_states, (last[0],)


class LstmLayer(RecurrentLayer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000):

    i, f, o = σ(W x_t + U h_{t−1} + b) of each gate,  g = tanh(…),  c_t = f ⊙ c_{t−1} + i ⊙ g,  h_t = o ⊙ tanh(c_t).

    The cell c changes by addition, so its gradient does not have to shrink.
    """

    gates = 4
    states = 2
    fused_on_cpu = True

    def step(self, projected: Tensor, state: State) -> State:
        hidden, cell = state
        gates = projected + F.linear(hidden, self.weight_hh, self.bias_hh)
        input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell

    def run_fused(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, cell = state
        hidden_states, last, last_cell = torch._VF.lstm(inputs, (hidden[None], cell[None]), *self._kernel_arguments)
        return hidden_states, (last[0], last_cell[0])


class GruLayer(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014; the reset gate after the product, as in cuDNN):

    r, z = σ(W x_t + U h_{t−1} + b) of each gate,  n = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t−1} + c_n)),
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}.
    """

    gates = 3

    def step(self, projected: Tensor, state: State) -> State:
        (hidden,) = state
        recurrent = F.linear(hidden, self.weight_hh, self.bias_hh)
        size = 2 * self.hidden_size
        reset, update = torch.sigmoid(projected[:, :size] + recurrent[:, :size]).chunk(2, dim=1)
        candidate = torch.tanh(projected[:, size:] + reset * recurrent[:, size:])
        return (candidate + update * (hidden - candidate),)

    def run_fused(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        hidden_states, last = torch._VF.gru(inputs, state[0][None], *self._kernel_arguments)
        return hidden_states, (last[0],)


LAYERS: dict[str, type[RecurrentLayer]] = {"rnn": ElmanLayer, "lstm": LstmLayer, "gru": GruLayer}


class RecurrentStack(nn.Module):
    """Layers of one cell, each reading the hidden states of the one below; `fused` as in `RecurrentLayer`."""

    def __init__(self, cell: str, input_size: int, hidden_size: int, layers: int, fused: bool | None = None):
        super().__init__()
        sizes = [input_size] + [hidden_size] * (layers - 1)
        self.layers = nn.ModuleList(LAYERS[cell](size, hidden_size) for size in sizes)
        for layer in self.layers:
            layer.fused = fused      # type: ignore[assignment]

    def forward(self, inputs: Tensor, states: list[State] | None = None, attention_mask: Tensor | None = None
                ) -> tuple[Tensor, list[State]]:
        """Hidden states (B, T, H) of the last layer, and the last state of each layer."""
        last = []
        for number, layer in enumerate(self.layers):
            inputs, state = layer(inputs, states[number] if states else None, attention_mask)
            last.append(state)
        return inputs, last


@dataclass(frozen=True)
class RecurrentShape:
    cell: str
    """`rnn`, `lstm` or `gru`."""
    vocab_size: int
    embedding_size: int
    hidden_size: int
    layers: int
    context_length: int


@dataclass
class RecurrentCache:
    """All that the model remembers of the tokens read so far."""

    states: list[State]
    """State of each layer."""

    def grow(self, counts: Tensor | int) -> None:
        """A state is as large after many tokens as after one."""

    def put(self, rows: Tensor, other: "RecurrentCache", of: Tensor) -> None:
        """Begin rows anew with those of another cache: row `rows[i]` with its row `of[i]`."""
        for own, theirs in zip(self.states, other.states, strict=True):
            for part, their_part in zip(own, theirs, strict=True):
                part[rows] = their_part[of]


class RecurrentLanguageModel(LanguageModel):
    """p(x_{t+1} | x_1 … x_t) = softmax(W h_t + b) (Mikolov et al. 2010)."""

    unbounded_context = True

    def __init__(self, shape: RecurrentShape):
        super().__init__()
        self.config = self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.embedding_size)
        self.recurrent = RecurrentStack(shape.cell, shape.embedding_size, shape.hidden_size, shape.layers)
        self.head = nn.Linear(shape.hidden_size, shape.vocab_size)

    @property
    def context_length(self) -> int:
        return self.shape.context_length

    def hidden(self, ids: Tensor, position_ids: Tensor | None = None, mask: Tensor | None = None,
               cache: RecurrentCache | None = None) -> Tensor:
        """Hidden states (B, T, H). A recurrent model needs no position ids; of the mask (B, 1, T, S) it takes which
        tokens are padding: the keys that the last query does not see."""
        attention_mask = None if mask is None else mask[:, 0, -1, -ids.shape[1]:]
        outputs, states = self.recurrent(self.embedding(ids), cache.states if cache else None, attention_mask)
        if cache is not None:
            for before, after in zip(cache.states, states, strict=True):
                for own, new in zip(before, after, strict=True):
                    own.copy_(new)
        return outputs

    def read(self, ids: Tensor, lengths: Tensor, cache: RecurrentCache) -> Tensor:
        is_token = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        states = self.hidden(ids, mask=is_token[:, None, None], cache=cache)
        return states[torch.arange(len(ids), device=ids.device), lengths - 1]

    def logits(self, states: Tensor) -> Tensor:
        return self.head(states)

    def new_cache(self, batch: int, capacity: int) -> RecurrentCache:
        """The states before the first token; they have room for any number."""
        like = self.embedding.weight
        layers = cast(list[RecurrentLayer], list(self.recurrent.layers))
        return RecurrentCache([layer.initial(like.new_zeros(batch, 1, 1)) for layer in layers])

    def training_flops_per_token(self, length: int) -> float:
        return flops_per_token(matrix_weights(self, "embedding"))
