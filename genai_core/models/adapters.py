"""Low-rank adapters (LoRA; Hu et al. 2022): a model's weights stay as they are, and what is trained is a product of
two small matrices beside each linear layer.

`add_adapters` puts them on in place, `merge` adds what they learned to the weights and takes them off.
`without_adapters` is the model that they were put on, on the same weights: a reference that takes no memory.
`merged_copy` is the model that `merge` would make, beside the one that is trained. With `bits: 4` the weights below
adapters are held in four bits (`four_bit.py`), and are the base from then on.
"""

import copy
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.config.training import ALL_LINEAR, LoraConfig
from genai_core.errors import InputError
from genai_core.models.four_bit import FourBitLinear, packed_bytes

Model = TypeVar("Model", bound=nn.Module)

HEAD = "lm_head"
"""Name of the layer that gives the logits, where it is none of the embedding: no adapter is put on it."""


class AdaptedLinear(nn.Module):
    """h = W x + (α / r) B A x for a layer of K inputs and N outputs (Hu et al. 2022, section 4.1 and eq. 3).

    A (r, K) starts at random and B (N, r) at zero, so that training begins with the model as it is.
    """

    def __init__(self, base_layer: nn.Module, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        weight, (inputs, outputs) = base_layer.weight, sizes(base_layer)
        assert isinstance(weight, Tensor)
        bound = inputs ** -0.5      # as `peft` draws it: Kaiming's uniform with a = √5 (He et al. 2015)
        drawn = (2 * torch.rand((rank, inputs), generator=generator) - 1) * bound
        self.base_layer = base_layer
        self.lora_A = nn.Parameter(drawn.to(weight.device))
        self.lora_B = nn.Parameter(torch.zeros((outputs, rank), device=weight.device))
        self.rank = rank
        self.alpha = alpha

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def weight(self) -> Tensor:
        """That of the layer itself, which some models look at."""
        weight = self.base_layer.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def frozen(self) -> Tensor:
        """The parameter that holds the weights of the layer itself."""
        return self.base_layer.packed if isinstance(self.base_layer, FourBitLinear) else self.weight

    def forward(self, x: Tensor) -> Tensor:
        learned: Tensor = F.linear(self.scale * F.linear(x, self.lora_A), self.lora_B)      # fewer numbers to scale
        return self.base_layer(x) + learned

    @torch.no_grad()
    def difference(self) -> Tensor:
        """(α / r) B A, as the layer keeps its weights."""
        difference = self.scale * (self.lora_B @ self.lora_A)
        return difference.T if is_transposed(self.base_layer) else difference

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The layer with W + (α / r) B A for W, changed in place; of four bits in float32."""
        layer = self.base_layer
        if isinstance(layer, FourBitLinear):
            layer = layer.dequantized()
        assert isinstance(layer.weight, Tensor)
        layer.weight.add_(self.difference())
        return layer


def is_transposed(layer: nn.Module) -> bool:
    """Whether a layer keeps its weights as (K, N), as the `Conv1D` of GPT-2 does in `transformers`."""
    return layer.transposed if isinstance(layer, FourBitLinear) else type(layer).__name__ == "Conv1D"


def sizes(layer: nn.Module) -> tuple[int, int]:
    """Number of inputs and of outputs of a linear layer."""
    assert isinstance(layer.weight, Tensor)
    rows, columns = layer.weight.shape
    return (rows, columns) if is_transposed(layer) else (columns, rows)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a model by name, but not the one that gives the logits."""
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    head = getattr(model, "head_weight", None)
    return {name: part for name, part in model.named_modules()
            if (isinstance(part, nn.Linear) or (is_transposed(part) and not isinstance(part, FourBitLinear)))
            and id(part.weight) not in embeddings and part.weight is not head and last(name) != HEAD}


def last(name: str) -> str:
    """Name of a part within the part that it belongs to."""
    return name.rpartition(".")[2]


def targeted(model: nn.Module, lora: LoraConfig, whole: tuple[str, ...] = ()) -> dict[str, nn.Module]:
    """The linear layers that get an adapter, by name. Raises InputError for a target that is none of them."""
    layers = {name: part for name, part in linear_layers(model).items() if last(name) not in whole}
    if lora.of_all:
        return layers
    for target in lora.targets:
        if not any(_is_called(name, target) for name in layers):
            known = ", ".join(dict.fromkeys(map(last, layers)))
            raise InputError(f"lora.targets: no linear layer of this model is called {target!r}; there are {known}, or "
                             f"{ALL_LINEAR}")
    return {name: part for name, part in layers.items() if any(_is_called(name, target) for target in lora.targets)}


def _is_called(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def add_adapters(model: nn.Module, lora: LoraConfig, seed: int, whole: tuple[str, ...] = ()) -> None:
    """Put adapters on a model, in place: they alone are trained from then on, and the parts that are called as `whole`
    says. Raises InputError for a target that the model does not have.

    With `lora.bits` the layers that get one lose their weights for the nearest ones of four bits, one after the other.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = targeted(model, lora, whole)
    model.requires_grad_(False)
    for name, part in model.named_modules():
        if last(name) in whole:
            part.requires_grad_(True)
    for name, layer in layers.items():
        adapter = AdaptedLinear(layer, lora.rank, lora.alpha, generator)
        if lora.bits:
            adapter.base_layer = FourBitLinear(layer, is_transposed(layer))
        _replace(model, name, adapter)


def whole_on(lora: LoraConfig | None, device: torch.device) -> torch.device:
    """Where a model that is trained on `device` is read and merged. One whose weights are four bits in between is whole
    in the machine's memory only: the device may have no room for it, and the bits are the same for every device."""
    return torch.device("cpu") if lora and lora.bits else device


def adapters_of(model: nn.Module) -> Iterator[tuple[str, AdaptedLinear]]:
    """The adapters of a model with the names of their layers."""
    return ((name, part) for name, part in model.named_modules() if isinstance(part, AdaptedLinear))


def has_adapters(model: nn.Module) -> bool:
    return any(adapters_of(model))


def merge(model: nn.Module) -> None:
    """Add what the adapters learned to the weights of their layers and take them off, in place."""
    for name, adapter in list(adapters_of(model)):
        _replace(model, name, adapter.merged())
    model.requires_grad_(True)


def without_adapters(model: Model) -> Model:
    """A model without the adapters of `model` on the same weights, neither copied nor trained; `merge` changes it too.
    """
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    plain = copy.deepcopy(model, shared)
    for name, adapter in list(adapters_of(plain)):
        _replace(plain, name, adapter.base_layer)
    return plain


def merged_copy(model: Model) -> Model:
    """A model with what the adapters of `model` learned added to its weights: those of adapted layers, none of which is
    in four bits, are copies as they are now and not trained, and all others are shared."""
    copied = without_adapters(model)
    for name, adapter in adapters_of(model):
        merged = adapter.weight.detach() + adapter.difference()
        copied.get_submodule(name).weight = nn.Parameter(merged, requires_grad=False)
    return copied


def adapter_parameters(model: nn.Module, lora: LoraConfig) -> int:
    """Number of parameters that the adapters of a model would have."""
    return sum(lora.rank * sum(sizes(layer)) for layer in targeted(model, lora).values())


def bytes_spared(model: nn.Module, lora: LoraConfig) -> int:
    """Memory that training takes less, in bytes, for the weights below the adapters that a model would have in four
    bits and not in float32; for its product the largest layer is there in float32, with what is looked up."""
    weights = [inputs * outputs for inputs, outputs in map(sizes, targeted(model, lora).values())]
    return sum(4 * each - packed_bytes(each) for each in weights) - 6 * max(weights) if lora.bits else 0


def trained_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def share_of_training(trained: int, parameters: int) -> float:
    """Operations of training some of the parameters of a model beside those of training all: of the three products with
    a weight matrix (Kaplan et al. 2020) the one for its gradient is made only where it is trained."""
    return (2 + trained / parameters) / 3


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, part)
