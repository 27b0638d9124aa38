"""A model in a form that other programs run: what `genai export` writes. Each form is a folder with a card."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from genai_core.data.chat import TURN_END, adopted_format, end_ids, token_id
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.compressed_tensors import save_compressed
from genai_core.export.gguf import FILE, read_gguf
from genai_core.export.gguf_layouts import read_layout, require_llama_cpp, write_any_gguf
from genai_core.export.gguf_tokenizer import byte_level_name
from genai_core.export.llama_quantize import require_k_quant, write_k_quant
from genai_core.export.model_directory import load_config, load_model, save_model
from genai_core.export.onnx import write_onnx
from genai_core.export.portable.write import write_parameters
from genai_core.models.huggingface import HuggingFaceConfig, HuggingFaceModel
from genai_core.models.opened import kind_of
from genai_core.models.transformer import Transformer

PORTABLE = Path(__file__).parent / "portable"

HUGGINGFACE_USE = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer, model = (each.from_pretrained(".") for each in (AutoTokenizer, AutoModelForCausalLM))
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True,
                                         return_tensors="pt", return_dict=True)
    print(tokenizer.decode(model.generate(**chat, max_new_tokens=50)[0]))
"""
GGUF_USE = """\
    llama-server -m model.gguf        # or any other program on llama.cpp
    ollama create NAME -f Modelfile && ollama run NAME
"""
PORTABLE_USE = """\
    python run.py "Hello"             # nothing but NumPy
    cc -O3 -march=native -ffast-math -fopenmp run.c -o run -lm && ./run "Hello"
"""
COMPRESSED_USE = """\
    vllm serve .                      # or `transformers`, with the package compressed-tensors
"""
ONNX_USE = """\
    session = onnxruntime.InferenceSession("model.onnx")
    session.run(None, {"ids": ids, "attention_mask": mask})      # int64 (B, T) and bool (B, T), False on padding
"""
OLLAMA_TEMPLATE = '''TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
'''


def export(directory: Path, out: Path, form: str, card: str, k_quant: str = "") -> None:
    """Write the model of a directory to the folder `out`, which must not exist or be empty, whole or not at all; of the
    form gguf in a K-quant where one is named.

    Raises InputError for an unknown form, and for one that a model of this kind has not.
    """
    if form not in FORMS:
        raise InputError(f"there is no format {form!r}; choose one of {', '.join(FORMS)}")
    if k_quant and form != "gguf":
        raise InputError(f"{k_quant} is a format of weights in GGUF files; the form {form} has none of these")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    write, use = FORMS[form]
    if k_quant:
        write = partial(_k_quant, k_quant)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as holder:
        scratch = Path(holder) / out.name
        scratch.mkdir()
        write(directory, scratch)
        (scratch / "README.md").write_text(f"{card.rstrip()}\n\n## Use\n\n{use}", encoding="utf-8")
        if out.exists():
            out.rmdir()
        scratch.rename(out)


def _transformer(directory: Path, form: str) -> Transformer:
    """The model of a directory in this project's own transformer. Raises InputError for any other."""
    model = _language_model(directory, form)
    if isinstance(model, HuggingFaceModel):
        raise InputError(f"{directory}: a model in the layout {model.config.native.model_type} has no form {form}; "
                         "there are huggingface and gguf")
    return model


def _language_model(directory: Path, form: str) -> Transformer | HuggingFaceModel:
    kind = kind_of(directory)
    if kind == "language_model":
        return load_model(directory, torch.device("cpu"))
    if kind != "quantized_language_model":
        raise InputError(f"{directory}: a model of kind {kind} has no form {form}; it can be had of decoder-only "
                         "language models")
    if not (directory / FILE).exists():
        raise InputError(f"{directory}: a quantized model of an earlier version; export the one that it was made from, "
                         "or run quantize again")
    config = load_config(directory)
    return read_layout(directory / FILE, config) if isinstance(config, HuggingFaceConfig) else \
        read_gguf(directory / FILE)


def _huggingface(directory: Path, out: Path) -> None:
    save_model(_language_model(directory, "huggingface"), directory, out)


def _gguf(directory: Path, out: Path) -> None:
    model = _language_model(directory, "gguf")
    require_llama_cpp(model.config, directory)
    if (directory / FILE).exists():
        shutil.copyfile(directory / FILE, out / FILE)
    else:
        write_any_gguf(model, directory, out / FILE, "F16")
    _write_modelfile(directory, model.context_length, out)


def _k_quant(k_quant: str, directory: Path, out: Path) -> None:
    require_k_quant(k_quant)
    if kind_of(directory) == "quantized_language_model":
        raise InputError(f"{directory}: its weights are rounded already; a {k_quant} is made of the model that it was "
                         "made from (models:/genai-rlhf@champion)")
    model = _language_model(directory, "gguf")
    require_llama_cpp(model.config, directory)
    write_k_quant(model, directory, out / FILE, k_quant)
    _write_modelfile(directory, model.context_length, out)


def _write_modelfile(directory: Path, context_length: int, out: Path) -> None:
    (out / "Modelfile").write_text(_modelfile(load_tokenizer(directory), context_length), encoding="utf-8")


def _modelfile(tokenizer: Tokenizer, context_length: int) -> str:
    """What ollama reads; the template of a base from outside it takes from the GGUF file."""
    ends = sorted(end_ids(tokenizer), key=lambda number: number != token_id(tokenizer, TURN_END))
    stops = "".join(f"PARAMETER stop {tokenizer.id_to_token(number)}\n" for number in ends)
    template = "" if adopted_format(tokenizer) else OLLAMA_TEMPLATE
    return f"FROM ./model.gguf\n{template}{stops}PARAMETER num_ctx {context_length}\n"


def _portable(directory: Path, out: Path) -> None:
    model = _transformer(directory, "portable")
    if differs := _beyond_portable(model, load_tokenizer(directory)):
        raise InputError(f"{directory}: a base with {differs} has no form portable; there are huggingface, gguf and "
                         "compressed-tensors")
    write_parameters(model, directory, out / "model.bin")
    for name in ("run.py", "run.c"):
        shutil.copyfile(PORTABLE / name, out / name)


def _beyond_portable(model: Transformer, tokenizer: Tokenizer) -> str:
    """What the two programs do not know of a model; empty where they know it all."""
    if adopted_format(tokenizer):
        return "a chat format of its own"
    if not model.config.tie_word_embeddings:
        return "an output matrix of its own"
    content = json.loads(tokenizer.to_str())
    known = byte_level_name(content) == "qwen2" and content["normalizer"] is None
    return "" if known else "a tokenizer that cuts text otherwise than Qwen2's"


def _compressed(directory: Path, out: Path) -> None:
    save_compressed(_transformer(directory, "compressed-tensors"), directory, out)


def _onnx(directory: Path, out: Path) -> None:
    if kind_of(directory) not in ("bert", "bert_classifier"):
        raise InputError(f"{directory}: the form onnx can be had of encoders (bert and the classifiers on it), not of "
                         f"a model of kind {kind_of(directory)}")
    write_onnx(directory, out / "model.onnx")
    for name in ("config.json", "tokenizer.json"):
        if (directory / name).exists():
            shutil.copyfile(directory / name, out / name)


FORMS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "huggingface": (_huggingface, HUGGINGFACE_USE),
    "gguf": (_gguf, GGUF_USE),
    "portable": (_portable, PORTABLE_USE),
    "compressed-tensors": (_compressed, COMPRESSED_USE),
    "onnx": (_onnx, ONNX_USE),
}
"""What writes each form, and how it is used."""
