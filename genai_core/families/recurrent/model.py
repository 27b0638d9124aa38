"""Recurrent cells written out, and the language model of them: embedding → recurrent layers → linear.

Each layer holds its weights as torch.nn.RNN, LSTM and GRU do, and gives the same numbers.

Shapes: B sequences, T tokens, I inputs, H hidden size, G gates (blocks of H rows in a weight), V vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.models.language_model import LanguageModel

State = tuple[Tensor, ...]
"""What a cell carries from one step to the next: (h,), or (h, c) for the LSTM; each (B, H)."""


class RecurrentLayer(nn.Module, ABC):
    """One layer over time: the inputs' products of all steps at once, then the steps one after the other."""

    gates: int
    states: int = 1

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
        """The next state from W_ih x_t + b_ih (B, G·H) and the state before."""

    def forward(self, inputs: Tensor, state: State | None = None, real: Tensor | None = None) -> tuple[Tensor, State]:
        """The hidden states (B, T, H) for inputs (B, T, I), and the last state; where `real` (B, T) is False, the state
        stays as it was."""
        if state is None:
            state = self.initial(len(inputs), inputs)
        projected = F.linear(inputs, self.weight_ih, self.bias_ih).unbind(1)
        outputs = []
        for time, part in enumerate(projected):
            following = self.step(part, state)
            if real is not None:
                keep = real[:, time, None]
                following = tuple(torch.where(keep, new, old) for new, old in zip(following, state, strict=True))
            state = following
            outputs.append(state[0])
        return torch.stack(outputs, dim=1), state

    def initial(self, batch: int, like: Tensor) -> State:
        return tuple(like.new_zeros(batch, self.hidden_size) for _ in range(self.states))


class ElmanLayer(RecurrentLayer):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh) (Elman 1990).

    The gradient over d steps is a product of d Jacobians W_hhᵀ diag(1 − h²): it vanishes or explodes (Bengio et al.
    1994).
    """

    gates = 1

    def step(self, projected: Tensor, state: State) -> State:
        return (torch.tanh(projected + F.linear(state[0], self.weight_hh, self.bias_hh)),)


class LstmLayer(RecurrentLayer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000):

    i, f, o = σ(W x_t + U h_{t−1} + b) of each gate,  g = tanh(…),  c_t = f ⊙ c_{t−1} + i ⊙ g,  h_t = o ⊙ tanh(c_t).

    The cell c changes by addition, so its gradient does not have to shrink.
    """

    gates = 4
    states = 2

    def step(self, projected: Tensor, state: State) -> State:
        hidden, cell = state
        gates = projected + F.linear(hidden, self.weight_hh, self.bias_hh)
        entrance, forget, candidate, exit_ = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(entrance) * torch.tanh(candidate)
        return torch.sigmoid(exit_) * torch.tanh(cell), cell


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


LAYERS: dict[str, type[RecurrentLayer]] = {"rnn": ElmanLayer, "lstm": LstmLayer, "gru": GruLayer}


class RecurrentStack(nn.Module):
    """Layers of one cell, each reading the hidden states of the one below."""

    def __init__(self, cell: str, input_size: int, hidden_size: int, layers: int):
        super().__init__()
        sizes = [input_size] + [hidden_size] * (layers - 1)
        self.layers = nn.ModuleList(LAYERS[cell](size, hidden_size) for size in sizes)

    def forward(self, inputs: Tensor, states: list[State] | None = None, real: Tensor | None = None
                ) -> tuple[Tensor, list[State]]:
        """Hidden states (B, T, H) of the uppermost layer, and the last state of each layer."""
        last = []
        for number, layer in enumerate(self.layers):
            inputs, state = layer(inputs, states[number] if states else None, real)
            last.append(state)
        return inputs, last


@dataclass(frozen=True)
class RecurrentShape:
    cell: str
    vocab_size: int
    embedding_size: int
    hidden_size: int
    layers: int
    context_length: int


@dataclass
class RecurrentCache:
    """The state after the tokens seen so far: all that the model remembers of them."""

    states: list[State] | None = None
    length: int = 0


class RecurrentLanguageModel(LanguageModel):
    """p(x_{t+1} | x_1 … x_t) = softmax(W h_t + b) (Mikolov et al. 2010)."""

    reads_on = True

    def __init__(self, shape: RecurrentShape):
        super().__init__()
        self.config = self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.embedding_size)
        self.recurrent = RecurrentStack(shape.cell, shape.embedding_size, shape.hidden_size, shape.layers)
        self.head = nn.Linear(shape.hidden_size, shape.vocab_size)

    @property
    def context_length(self) -> int:
        return self.shape.context_length

    def hidden(self, ids: Tensor, positions: Tensor | None = None, mask: Tensor | None = None,
               cache: RecurrentCache | None = None) -> Tensor:
        """Hidden states (B, T, H). A recurrent model needs no positions; of the mask (B, 1, T, S) it takes which of the
        tokens are padding."""
        real = None if mask is None else mask[:, 0, -1, -ids.shape[1]:]
        outputs, states = self.recurrent(self.embedding(ids), cache.states if cache else None, real)
        if cache is not None:
            cache.states, cache.length = states, cache.length + ids.shape[1]
        return outputs

    def logits(self, states: Tensor) -> Tensor:
        return self.head(states)

    def new_cache(self, batch: int, capacity: int) -> RecurrentCache:
        return RecurrentCache()

    def training_flops_per_token(self, length: int) -> float:
        """6 N, N the weights that multiply: the embedding is looked up."""
        weights = sum(parameter.numel() for name, parameter in self.named_parameters()
                      if parameter.dim() == 2 and not name.startswith("embedding"))
        return 6.0 * weights
