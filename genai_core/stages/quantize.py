"""The stage quantize: the chat model in eight and in four bits, with what it costs and what it saves."""

import time
from pathlib import Path

import numpy as np
import torch

from genai_core.config.release import QuantizeConfig
from genai_core.config.tasks import Mixture
from genai_core.config.training import InstructConfig
from genai_core.context import Context, Result
from genai_core.data.chat import render_prompt
from genai_core.data.instruction.examples import user_asks
from genai_core.data.instruction.fine_tuning import calibration_rows
from genai_core.data.tokens.token_files import read_tokens, validation_names
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.bits_per_byte import held_out_loss, token_byte_lengths
from genai_core.export.model_directory import load_config, load_model
from genai_core.inference.generate import generate
from genai_core.models.language_model import LanguageModel
from genai_core.quantization.directory import load_quantized, quantize_to_directory
from genai_core.quantization.weights import Bits

FORMATS: dict[str, Bits] = {"int8": 8, "int4": 4}


def run(config: QuantizeConfig, *, model: Path, tokens: Path, cleaned: Path, mixture: Mixture,
        fine_tuning: InstructConfig, out_dir: Path, context: Context) -> Result:
    """Write `int8/` and `int4/` model directories; sizes and bits per byte as metrics, speeds as measurements.

    The four-bit weights are rounded for chats that the model was fine-tuned on, of a base model for training text.
    Everything is compared in float32 on the CPU, where quantized models are meant to run.
    """
    reporter = context.reporter
    cpu = torch.device("cpu")
    _check_groups(model, config.int4_group_size)
    full = load_model(model, cpu)
    byte_lengths = token_byte_lengths(load_tokenizer(model))
    files = {name: read_tokens(tokens, f"validation.{name}") for name in validation_names(tokens)}
    size = (model / "model.safetensors").stat().st_size
    metrics: dict[str, float] = {"float32/bytes": size}
    measurements = {"float32/tokens_per_second": decode_speed(full, model, config.decode_tokens)}

    def bits_per_byte(candidate: LanguageModel, name: str) -> dict[str, float]:
        length = full.context_length
        losses = {source: held_out_loss(candidate, file, byte_lengths, length, max_tokens=config.validation_tokens,
                                        device=cpu, precision=torch.float32).bits_per_byte
                  for source, file in files.items()}
        return {f"{name}/bits_per_byte/{source}": value for source, value in losses.items()} \
            | {f"{name}/bits_per_byte": sum(losses.values()) / len(losses)}

    metrics |= bits_per_byte(full, "float32")
    rows = calibration_rows(fine_tuning, mixture, load_tokenizer(model), cleaned, tokens, config.calibration_tokens)
    calibration = [rows.take(np.arange(first, min(first + 16, len(rows.ids))), cpu)
                   for first in range(0, len(rows.ids), 16)]
    for done, (name, bits) in enumerate(FORMATS.items(), start=1):
        quantize_to_directory(full, bits, config.int4_group_size, model, out_dir / name, calibration)
        quantized = load_quantized(out_dir / name, cpu)
        stored = (out_dir / name / "model.safetensors").stat().st_size
        metrics |= bits_per_byte(quantized, name) | {f"{name}/bytes": stored, f"{name}/size_ratio": stored / size}
        metrics[f"{name}/bits_per_byte_ratio"] = metrics[f"{name}/bits_per_byte"] / metrics["float32/bits_per_byte"]
        measurements[f"{name}/tokens_per_second"] = decode_speed(quantized, model, config.decode_tokens)
        reporter.note(f"{name}: {stored / size:.3f} of the size, bits per byte "
                      f"{metrics[f'{name}/bits_per_byte_ratio'] - 1:+.2%}, "
                      f"{measurements[f'{name}/tokens_per_second']:.0f} tokens/s "
                      f"(float32: {measurements['float32/tokens_per_second']:.0f})")
        reporter.progress(done, len(FORMATS), "formats")
    return Result(metrics, measurements)


def decode_speed(model: LanguageModel, directory: Path, tokens: int) -> float:
    """Tokens per second of greedy decoding of one sequence: the best of three runs, nothing ends one early."""
    tokenizer = load_tokenizer(directory)
    tokens = min(tokens, model.context_length - 32)
    prompt = tokenizer.encode(render_prompt(user_asks("Good morning. What is the news?")),
                              add_special_tokens=False).ids[:32]
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        generate(model, [prompt], tokens, set(), pad_id=0)
        best = min(best, time.perf_counter() - start)
    return tokens / best


def _check_groups(model: Path, group_size: int) -> None:
    config = load_config(model)
    for width in (config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_dim):
        if width % group_size:
            raise InputError(f"quantize.int4_group_size: {group_size} does not divide the layer width {width}")
