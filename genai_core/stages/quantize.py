"""The stage quantize: the chat model in eight and in four bits, with what it costs and what it saves."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from genai_core.config.release import QuantizeConfig
from genai_core.config.tasks import Mixture
from genai_core.config.training import InstructConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.instruction.fine_tuning import calibration_rows
from genai_core.data.tokens.token_files import read_tokens, validation_names
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.bits_per_byte import HeldOutLoss, held_out_loss, token_byte_lengths
from genai_core.evaluation.intervals import mean_interval, ratio_interval, stretch_outcomes
from genai_core.export.gguf import EMBEDDING, FILE, NAMES, Format, tensor_bytes
from genai_core.export.gguf_layouts import write_any_gguf
from genai_core.export.model_directory import load_model
from genai_core.inference.generate import generate
from genai_core.mapping import usable_cores
from genai_core.models.huggingface import HuggingFaceModel
from genai_core.models.language_model import LanguageModel
from genai_core.models.transformer import Transformer
from genai_core.quantization.directory import load_quantized, quantize_to_directory
from genai_core.quantization.speed import BATCHES, PROMPT_TOKENS, best_rate, measure_speed

FORMATS: dict[str, Format] = {"int8": "Q8_0", "int4": "IQ4_NL"}
"""Directories that are written, and what their weights are in: docs/LOG.md says why these."""
CPU = torch.device("cpu")


def run(config: QuantizeConfig, *, model: Path, tokens: Path, cleaned: Path, mixture: Mixture,
        fine_tuning: InstructConfig, out_dir: Path, context: Context) -> Result:
    """Write `int8/` and `int4/` model directories; sizes and bits per byte as metrics, speeds as measurements.

    The four-bit weights are rounded for chats that the model was fine-tuned on, of a base model for training text. Bits
    per byte are those of the rounded weights in float32. Speeds are those of this machine's CPU, in each program that
    runs the model: llama.cpp, and the project's own in float32.
    """
    reporter = context.reporter
    full = load_model(model, CPU)
    byte_lengths = token_byte_lengths(load_tokenizer(model))
    files = {name: read_tokens(tokens, f"validation.{name}") for name in validation_names(tokens)}

    def losses(candidate: LanguageModel) -> dict[str, HeldOutLoss]:
        return {source: held_out_loss(candidate, file, byte_lengths, full.context_length,
                                      max_tokens=config.validation_tokens, device=CPU, precision=torch.float32)
                for source, file in files.items()}

    of_full = losses(full)
    metrics = {"float32/bytes": 4.0 * sum(parameter.numel() for parameter in full.parameters())}
    metrics |= _bits_per_byte(of_full, "float32")
    rows = calibration_rows(fine_tuning, mixture, load_tokenizer(model), cleaned, tokens, config.calibration_tokens)
    calibration = [rows.take(np.arange(first, min(first + 16, len(rows.ids))), CPU)
                   for first in range(0, len(rows.ids), 16)]
    for done, (name, form) in enumerate(FORMATS.items(), start=1):
        quantize_to_directory(full, form, model, out_dir / name, calibration)
        of_quantized = losses(load_quantized(out_dir / name, CPU))
        metrics |= _bits_per_byte(of_quantized, name)
        metrics |= _sizes(name, out_dir / name / FILE, metrics["float32/bytes"])
        metrics |= _ratio(of_full, of_quantized, name)
        reporter.note(f"{name}: {metrics[f'{name}/size_ratio']:.3f} of the size, bits per byte "
                      f"{metrics[f'{name}/bits_per_byte_ratio'] - 1:+.2%}")
        reporter.progress(done, len(FORMATS) + 1, "formats")
    return Result(metrics, _speeds(full, model, out_dir, config.decode_tokens, reporter))


def _bits_per_byte(losses: dict[str, HeldOutLoss], name: str) -> dict[str, float]:
    """Of each source, and their mean with the ends of its 95 % interval, from resampling blocks of the text."""
    by_source = {source: loss.bits_per_byte for source, loss in losses.items()}
    mean = sum(by_source.values()) / len(by_source)
    low, high = mean_interval([stretch_outcomes(loss.stretches) for loss in losses.values()], mean)
    return {f"{name}/bits_per_byte/{source}": value for source, value in by_source.items()} | {
        f"{name}/bits_per_byte": mean, f"{name}/bits_per_byte_low": low, f"{name}/bits_per_byte_high": high}


def _ratio(full: dict[str, HeldOutLoss], quantized: dict[str, HeldOutLoss], name: str) -> dict[str, float]:
    """Bits per byte of the quantized model by those of the full one, with the ends of the 95 % interval."""
    ratio = (sum(loss.bits_per_byte for loss in quantized.values()) / len(quantized)
             / (sum(loss.bits_per_byte for loss in full.values()) / len(full)))
    low, high = ratio_interval([stretch_outcomes(loss.stretches) for loss in full.values()],
                               [stretch_outcomes(quantized[source].stretches) for source in full], ratio)
    figure = f"{name}/bits_per_byte_ratio"
    return {figure: ratio, f"{figure}_low": low, f"{figure}_high": high}


def _sizes(name: str, path: Path, full: float) -> dict[str, float]:
    """Bytes of all tensors, of which the embedding, in eight bits, counts apart too."""
    tensors = tensor_bytes(path)
    size = float(sum(tensors.values()))
    return {f"{name}/bytes": size, f"{name}/size_ratio": size / full,
            f"{name}/embedding_bytes": float(tensors[NAMES[EMBEDDING]])}


def _speeds(full: Transformer | HuggingFaceModel, directory: Path, out_dir: Path, tokens: int, reporter: Reporter
            ) -> dict[str, float]:
    """Tokens per second of one sequence and of 32 at once by program and format, and the peak of memory."""
    prompts = [[number % 256] * PROMPT_TOKENS for number in range(max(BATCHES))]
    tokens = min(tokens, full.context_length - PROMPT_TOKENS)
    found = {f"genai/float32/{_of(batch)}": best_rate(partial(generate, full, prompts[:batch], tokens, set(), pad_id=0),
                                                      batch * tokens) for batch in BATCHES}
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / FILE
        try:
            write_any_gguf(full, directory, whole, "F32")
        except InputError as error:
            reporter.note(f"speed in llama.cpp not measured: {error}")
            return found
        for name, path in {"float32": whole, **{name: out_dir / name / FILE for name in FORMATS}}.items():
            try:
                measured = measure_speed(path, tokens, usable_cores())
            except InputError as error:
                reporter.note(f"speed in llama.cpp not measured: {error}")
                return found
            found |= {f"llama.cpp/{name}/{figure}": value for figure, value in measured.items()}
            reporter.note(f"{name} in llama.cpp: {measured[_of(1)]:,.0f} tokens/s, {measured[_of(32)]:,.0f} for 32 at "
                          f"once, {measured['peak_bytes'] / 1e6:,.0f} MB")
    return found


def _of(batch: int) -> str:
    return "tokens_per_second" if batch == 1 else f"tokens_per_second_{batch}"
