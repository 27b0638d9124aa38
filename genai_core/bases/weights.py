"""The weights of a base: what their headers say before anything is loaded, and the model that they become."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genai_core.bases.places import Place
from genai_core.data.tokens.batches import pad
from genai_core.errors import InputError
from genai_core.hardware import available_memory
from genai_core.models.huggingface import (
    HuggingFaceConfig,
    HuggingFaceModel,
    load_huggingface,
    require_transformers,
)
from genai_core.models.masks import left_padded_mask, position_ids_of
from genai_core.models.opened import read_json
from genai_core.models.transformer import Transformer, TransformerConfig

Model = Transformer | HuggingFaceModel
COPIES = 2
"""Copies of the weights in float32 that taking a base in holds at a time: the model's and the file's."""
TOLERANCE = 1e-3
"""Largest difference of logits, as a share of their standard deviation, that rounding explains."""
LONGEST_PROBE = 600
"""Tokens of the longest sequence on which windows of attention are checked."""
BEYOND = 8
"""Tokens of it beyond the window."""
CPU = torch.device("cpu")


def load_base(place: Place) -> Model:
    """The model of a base: in this project's own transformer where it has Qwen3's layout, else by `transformers`.

    Raises InputError, before loading, for files that are cut short and for a model that the memory does not hold; then
    for weights that do not fit their config, and for a layout that computes something else with a cache or padding.
    """
    if place.gguf:
        return _from_gguf(place)
    values = {name: value for name, value in read_json(place.directory / "config.json").items()
              if name != "quantization_config" or value}
    files = weight_files(place.directory)
    require_memory(sum(map(_parameters, files)), place.directory)
    if "quantization_config" in values:
        given = values["quantization_config"]
        method = given.get("quant_method", "an unknown method") if isinstance(given, dict) else given
        raise InputError(f"{place.directory / 'config.json'}: the weights are quantized ({method}); name the model "
                         "that they were made from, or a GGUF file")
    own = own_layout(values)
    if own is None:
        loaded = load_huggingface(HuggingFaceConfig(values), place.directory, CPU)
        _require_finite(loaded, place)
        return _checked(loaded)
    model = Transformer(own)
    weights = _read(files)
    if own.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{files[0]}: the weights do not fit config.json ({reason})") from None
    _require_finite(model, place)
    return model.eval()


def own_layout(values: dict[str, Any]) -> TransformerConfig | None:
    """The sizes of a config in Qwen3's layout as this project's transformer has it; None for any other."""
    rope = values.get("rope_parameters") or {"rope_theta": values.get("rope_theta"),
                                             **(values.get("rope_scaling") or {})}
    plain = (values.get("model_type") == "qwen3" and values.get("hidden_act", "silu") == "silu"
             and not values.get("attention_bias") and not values.get("use_sliding_window")
             and rope.get("rope_type", rope.get("type", "default")) == "default"
             and set(values.get("layer_types") or ["full_attention"]) == {"full_attention"})
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "intermediate_size", "max_position_embeddings")
    if not plain or any(name not in values for name in names):
        return None
    if wrong := [name for name in names if type(values[name]) is not int or values[name] < 1]:
        raise InputError(f"config.json: {wrong[0]} is {values[wrong[0]]!r}, which is no positive whole number")
    return TransformerConfig(
        **{name: values[name] for name in names}, head_dim=int(values.get("head_dim") or 128),
        rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
        rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)))


def shape_of(directory: Path) -> TransformerConfig | None:
    """The sizes of the model of a directory in any layout, for estimates; None where there is no such config here."""
    if not (directory / "config.json").is_file():
        return None
    values = read_json(directory / "config.json")
    try:
        if own := own_layout(values):
            return own
        config = HuggingFaceConfig({name: value for name, value in values.items() if name != "kind"})
        native = config.native
    except InputError:
        return None      # which the stage says
    heads = int(native.num_attention_heads)
    return TransformerConfig(
        vocab_size=config.vocab_size, hidden_size=config.hidden_size, num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=heads, num_key_value_heads=int(getattr(native, "num_key_value_heads", None) or heads),
        head_dim=config.attention_width // heads, max_position_embeddings=config.max_position_embeddings,
        intermediate_size=int(getattr(native, "intermediate_size", None) or 4 * config.hidden_size),
        tie_word_embeddings=bool(getattr(native, "tie_word_embeddings", True)))


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model. Raises InputError where one is missing."""
    index, single = directory / "model.safetensors.index.json", directory / "model.safetensors"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise InputError(f"{directory}: there is no model.safetensors, nor model.safetensors.index.json that names its "
                         "parts")
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index}: weight_map is no object of tensors and the files that hold them; fetch the base "
                         "again")
    files = [directory / name for name in sorted(set(named.values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing, which {index.name} names; fetch the base again")
    return files


@torch.no_grad()
def grown(model: Model, entries: int, added: Sequence[int]) -> Model:
    """The model with rows for so many tokens, those of the ids `added` near the mean of the others: new ones, and ones
    that pad an embedding and were never trained; in the output matrix too where it has its own."""
    if not added:
        return model
    rows = model.config.vocab_size
    if entries > rows:
        model = model.grow(entries) if isinstance(model, HuggingFaceModel) else _with_rows(model, entries)
    known = torch.ones(min(entries, rows), dtype=torch.bool)      # what lies beyond the tokens pads the matrix
    known[[number for number in added if number < len(known)]] = False
    generator = torch.Generator().manual_seed(0)
    for values in _by_token(model):
        others = values[:len(known)][known]
        noise = torch.randn(len(added), *values.shape[1:], generator=generator)
        values[list(added)] = others.mean(0) + 0.1 * others.std(0) * noise
    return model


def _by_token(model: Model) -> list[Tensor]:
    """The parameters of a model that have a row for each token, each once."""
    if isinstance(model, HuggingFaceModel):
        ends = [model.network.get_input_embeddings(), model.network.get_output_embeddings()]
    else:
        ends = [layer for layer in (model.model.embed_tokens, model.lm_head) if layer is not None]
    return list({id(values): values for layer in ends for values in layer.parameters()}.values())


def _with_rows(model: Transformer, entries: int) -> Transformer:
    """The model with so many rows for tokens, new ones of zeros."""
    larger = Transformer(replace(model.config, vocab_size=entries))
    weights = model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name] = F.pad(weights[name], (0, 0, 0, entries - len(weights[name])))
    larger.load_state_dict(weights)
    return larger.eval()


def require_memory(parameters: int, what: Path | str) -> None:
    """Raise InputError for a model that the free memory does not hold."""
    needed, free = 4 * COPIES * parameters, available_memory()
    if needed > free:
        raise InputError(f"{what}: {parameters / 1e9:.2f} billion parameters take {needed / 2**30:.1f} GiB of memory "
                         f"to take in, and {free / 2**30:.1f} GiB are free; take a smaller base or a larger machine")


def _parameters(file: Path) -> int:
    """Number of weights in a file, by its header. Raises InputError for one that is damaged or cut short."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(size))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + size + max((entry["data_offsets"][1] for entry in tensors), default=0)
        if end != file.stat().st_size:
            raise ValueError(f"{file.stat().st_size:,} bytes where its header says {end:,}")
        return sum(int(torch.Size(entry["shape"]).numel()) for entry in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{file}: not a readable safetensors file ({error}); fetch the base again") from None


def _read(files: Iterable[Path]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as stored:
                weights |= {name: stored.get_tensor(name).float() for name in stored.keys()}      # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: not a readable safetensors file ({error}); fetch the base again") from None
    return weights


def _from_gguf(place: Place) -> Model:
    """A GGUF file by the loader of `transformers`, its weights widened once."""
    require_transformers()
    from transformers import AutoConfig

    path, reader = place.directory / place.gguf, place.reader()
    require_memory(sum(int(tensor.n_elements) for tensor in reader.tensors), path)
    try:
        values = AutoConfig.from_pretrained(str(place.directory), gguf_file=place.gguf).to_dict()
    except Exception as error:      # whatever its loaders raise
        architecture = reader.get_field("general.architecture")
        raise InputError(f"{path}: transformers does not read GGUF files of the architecture "
                         f"{architecture.contents() if architecture else 'none'} "
                         f"({' '.join(str(error).split())[:150]}); name the model in safetensors") from None
    loaded = load_huggingface(HuggingFaceConfig(values), place.directory, CPU, gguf=place.gguf)
    _require_finite(loaded, place)
    own = own_layout(loaded.config.to_dict())
    if own is None:
        return _checked(loaded)
    model = Transformer(own)
    model.load_state_dict(dict(loaded.network.named_parameters()))
    return model.eval()


def _require_finite(model: Model, place: Place) -> None:
    """Raise InputError where a weight is no number."""
    network = model.network if isinstance(model, HuggingFaceModel) else model
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"{place.directory / place.gguf}: {name} has weights that are no numbers (NaN or "
                             "infinity); fetch the base again")


@torch.no_grad()
def _checked(model: HuggingFaceModel) -> HuggingFaceModel:
    """The model, if its logits are those of `transformers`, and the same with a cache and with padding."""
    layout = model.config.native.model_type
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(model.config.vocab_size, 1000), (2, 12), generator=generator)
    try:
        expected = model.network(input_ids=ids, use_cache=False).logits
        whole = model(ids)
        cache = model.new_cache(2, 12)
        stepwise = torch.cat([model(ids[:, :7], cache=cache), *(model(ids[:, place:place + 1], cache=cache)
                                                                for place in range(7, 12))], dim=1)
        padded, attention_mask = pad([ids[0].tolist(), ids[1, :5].tolist()], 0, "left")
        behind = model(padded, position_ids_of(attention_mask), left_padded_mask(attention_mask))[1, -5:]
    except InputError:
        raise
    except Exception as error:      # a layout may do anything
        raise InputError(f"the layout {layout} cannot be run here with masks and a cache of this project "
                         f"({type(error).__name__}: {' '.join(str(error).split())[:150]})") from None
    for what, found, wanted in (("without a cache", whole, expected), ("with a cache", stepwise, expected),
                                ("with padding", behind, whole[1, :5])):
        if not (found - wanted).abs().max() <= TOLERANCE * wanted.std() + 1e-6:
            raise InputError(f"the layout {layout} computes something else {what} here than transformers does, so it "
                             "cannot be a base")
    _check_windows(model)
    return model


def _check_windows(model: HuggingFaceModel) -> None:
    """Raise InputError for a layout whose windows of attention are not those of `transformers`, with a cache that has
    room left too; hidden states tell it without the logits of so many tokens."""
    config, native = model.config, model.config.native
    windows = [value for name, value in native.to_dict().items() if "window" in name and type(value) is int]
    if "local" in (getattr(native, "attention_layers", None) or ()) and max(windows, default=LONGEST_PROBE) \
            > LONGEST_PROBE - BEYOND < config.max_position_embeddings:
        raise InputError(f"the layout {native.model_type} has layers of local attention whose window is too long to "
                         "be checked, so it cannot be a base")
    probed = [window for window in windows if 0 < window <= LONGEST_PROBE - BEYOND]
    if not probed:
        return
    count = min(max(probed) + BEYOND, config.max_position_embeddings)
    ids = torch.randint(0, min(config.vocab_size, 1000), (1, count), generator=torch.Generator().manual_seed(0))
    expected = model.network.base_model(input_ids=ids, use_cache=False).last_hidden_state
    cache = model.new_cache(1, count + BEYOND)
    stepwise = torch.cat([model.hidden(ids[:, :-2], cache=cache), model.hidden(ids[:, -2:-1], cache=cache),
                          model.hidden(ids[:, -1:], cache=cache)], dim=1)
    for what, found in (("without a cache", model.hidden(ids)), ("with a cache", stepwise)):
        if not (found - expected).abs().max() <= TOLERANCE * expected.std() + 1e-6:
            raise InputError(f"the layout {native.model_type} computes something else {what} here than transformers "
                             f"does, beyond a window of {max(probed)} tokens, so it cannot be a base")
