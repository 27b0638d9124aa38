"""The evaluation of language models of characters: bits per character beside n-grams, samples, and how far the
gradient reaches back."""

from pathlib import Path

import torch
import torch.nn.functional as F

from genai_core.context import Context, Reporter, Result
from genai_core.data.tokens.token_files import TokenFile
from genai_core.families.characters import HeldOutCharacters
from genai_core.families.recurrent.config import CharacterEvaluationConfig
from genai_core.families.recurrent.model import RecurrentLanguageModel
from genai_core.families.report import Columns, Pictures, Samples, write_evaluation
from genai_core.hardware import choose_device
from genai_core.inference.sampling import Sampling
from genai_core.inference.text import continue_text, open_text_model
from genai_core.pictures import figure_and_axes, save_picture

GRADIENT_WINDOWS = 64
"""Most windows of text that the gradient is averaged over."""


def run(config: CharacterEvaluationConfig, *, tokens: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of each model and of n-grams over the same text, a sample of each, and the pictures."""
    reporter = context.reporter
    pictures = Pictures(out_dir)
    columns, samples = measure(config, tokens, models, pictures, reporter, choose_device(context.device))
    return write_evaluation(columns, pictures, out_dir, samples)


def measure(config: CharacterEvaluationConfig, tokens: Path, models: dict[str, Path], pictures: Pictures,
            reporter: Reporter, device: torch.device) -> tuple[Columns, dict[str, Samples]]:
    """Figures and a sample of each model, and the figures of n-grams over the same text."""
    held_out = HeldOutCharacters(tokens, config.held_out_tokens)
    columns, samples = Columns(), dict[str, Samples]()
    recurrent = {}
    for model_name, directory in models.items():
        model = open_text_model(directory, device).model
        bits = held_out.bits(model, device, overlap=True)
        columns[model_name] = {"bits_per_character": bits,
                               "parameters": sum(parameter.numel() for parameter in model.parameters())}
        reporter.note(f"{model_name}: {bits:.3f} bits per character")
        pieces = continue_text(model, held_out.tokenizer, config.prompt, config.sample_tokens,
                               Sampling(config.temperature), seed=0)
        samples[model_name] = [{"task": "continue", "asked": config.prompt, "expected": "",
                                "answered": "".join(pieces)}]
        if isinstance(model, RecurrentLanguageModel):
            recurrent[model_name] = model
    columns["baseline"] = {"bits_per_character": held_out.ngram_bits(config.ngram_order)}
    columns |= _gradient_reach(recurrent, held_out.file, config, pictures, columns)
    return columns, samples


def _gradient_reach(models: dict[str, RecurrentLanguageModel], file: TokenFile, config: CharacterEvaluationConfig,
                    pictures: Pictures, columns: Columns) -> Columns:
    """Draw how the gradient of the last step's loss falls with the distance of the input, for each model trained and
    untrained: its norm at each distance, as a share of that at distance 1."""
    length = max(config.memory_lengths) + 1
    ids = torch.stack([torch.from_numpy(file.ids[start:start + length + 1].astype("int64"))
                       for start in range(0, (len(file.ids) - length - 1), length)[:GRADIENT_WINDOWS]])
    figure, axes = figure_and_axes(6, 3.2)
    figures: Columns = {}
    for number, (name, model) in enumerate(models.items()):
        torch.manual_seed(0)
        untrained = RecurrentLanguageModel(model.shape).to(next(model.parameters()).device)
        for measured, style, label in ((model, "-", name), (untrained, ":", f"{name}, untrained")):
            norms = _input_gradients(measured, ids.to(next(measured.parameters()).device))
            shares = [norms[-distance] / norms[-1] for distance in config.memory_lengths]
            axes.plot(config.memory_lengths, shares, style, color=f"C{number}", marker="o", markersize=3, label=label)
            if measured is model:
                figures[name] = {**columns[name], f"gradient_at_{config.memory_lengths[-1]}": shares[-1]}
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("distance of the input, in steps")
    axes.set_ylabel("gradient, as a share\nof that at distance 1")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("gradient-reach", "how the gradient of the last step's loss falls on its way "
                                                        "back in time"))
    return figures


def _input_gradients(model: RecurrentLanguageModel, ids: torch.Tensor) -> list[float]:
    """Mean norm of ∂ loss at the last step / ∂ embedding at each step, oldest first, for token ids (B, T)."""
    embedded = model.embedding(ids[:, :-1]).detach().requires_grad_()
    outputs, _ = model.recurrent(embedded)
    F.cross_entropy(model.logits(outputs[:, -1]), ids[:, -1], reduction="sum").backward()
    assert embedded.grad is not None
    return embedded.grad.norm(dim=2).mean(0).clamp(min=1e-30).tolist()
