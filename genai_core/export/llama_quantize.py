"""K-quants, by the program that llama.cpp has for them: formats with rows in blocks of 256 and a scale of scales."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from genai_core.errors import InputError
from genai_core.export.gguf_layouts import write_any_gguf
from genai_core.models.huggingface import HuggingFaceModel
from genai_core.models.transformer import Transformer

K_QUANTS = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K")
PROGRAM = "llama-quantize"
VARIABLE = "GENAI_LLAMA_QUANTIZE"
"""Names the program where it is not on PATH."""
SUPER_BLOCK = 256


def require_k_quant(form: str) -> str:
    """The program's path. Raises InputError where it is missing, and for a format that is none of K_QUANTS."""
    if form not in K_QUANTS:
        raise InputError(f"there is no K-quant {form!r}; choose one of {', '.join(K_QUANTS)}")
    found = shutil.which(os.environ.get(VARIABLE) or PROGRAM)
    if found is None:
        raise InputError(f"{form} is made by llama.cpp's own program, and there is no {PROGRAM} on PATH: install "
                         f"llama.cpp, or name the program in {VARIABLE}; the formats of `quantize` need neither")
    return found


def write_k_quant(model: Transformer | HuggingFaceModel, tokenizer_dir: Path, path: Path, form: str) -> None:
    """Write a model as a GGUF file in one of K_QUANTS. Raises InputError as `require_k_quant` does, and for rows of no
    multiple of 256 weights."""
    program = require_k_quant(form)
    widths = {weight.shape[1] for weight in model.parameters() if weight.dim() == 2}
    if odd := [width for width in widths if width % SUPER_BLOCK]:
        raise InputError(f"{form} cuts rows into blocks of {SUPER_BLOCK} weights, and a layer of this model is "
                         f"{odd[0]} wide; take the formats of `quantize`")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole, rounded = Path(folder) / "whole.gguf", Path(folder) / "rounded.gguf"
        write_any_gguf(model, tokenizer_dir, whole, "F32")
        done = subprocess.run([program, str(whole), str(rounded), form], capture_output=True, text=True, check=False)
        if done.returncode or not rounded.exists():
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise InputError(f"{program} made no {form} (exit code {done.returncode}): {said[-1]}")
        rounded.replace(path)
