"""The evaluation of the diffusion model: distance, coverage and agreement with the label beside the autoencoder's, with
and without guidance, and how an image comes out of the noise."""

from pathlib import Path

import torch
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.families.diffusion.config import DiffusionEvaluationConfig
from genai_core.families.diffusion.generation import load_diffusion
from genai_core.families.diffusion.model import Diffusion
from genai_core.families.images.digits import CLASSES, load_digits
from genai_core.families.images.evaluation import ImageMetrics, balanced_labels, evenly
from genai_core.families.report import Pictures, write_evaluation
from genai_core.families.vae.generation import load_vae
from genai_core.hardware import choose_device
from genai_core.pictures import figure_and_axes, save_grid, save_picture

STRIP_IMAGES = 10


def run(config: DiffusionEvaluationConfig, *, data: Path, classifier: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of `diffusion`, of the same without guidance, and of `conditional_vae`, and the pictures."""
    reporter = context.reporter
    device = choose_device(context.device)
    metrics = ImageMetrics(classifier, load_digits(data, "test")[0], device)
    model = load_diffusion(models["diffusion"], device)
    autoencoder = load_vae(models["conditional_vae"], device)
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    labels = balanced_labels(config.images)
    guided = _generate(model, labels, config.seed, device, model.shape.guidance)
    unguided = _generate(model, labels, config.seed, device, 0.0)
    decoded = autoencoder.generate(labels.to(device), torch.Generator().manual_seed(config.seed)).cpu()
    columns["diffusion"] = metrics.measure(guided, labels)
    columns["without_guidance"] = metrics.measure(unguided, labels)
    columns["baseline"] = metrics.measure(decoded, labels)
    real = evenly(load_digits(data, "train")[0], config.images)
    columns["real"] = {"frechet_distance": metrics.distance(real)}
    for name, figures in columns.items():
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.3f}" for figure, value in figures.items()))
    save_grid(guided[:40], pictures.add("samples", "samples of the diffusion model, asked for 0 to 9 in each row"), 10)
    of_vae = pictures.add("samples-vae", "samples of the conditional autoencoder, asked for the same")
    save_grid(decoded[:40], of_vae, 10)
    _draw_strip(model, device, config, pictures)
    _draw_guidance(model, metrics, labels[:config.sweep_images], config, device, pictures)
    return write_evaluation(columns, pictures, out_dir)


def _generate(model: Diffusion, labels: Tensor, seed: int, device: torch.device, guidance: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([model.generate(part.to(device), generator, guidance).cpu() for part in labels.split(250)])


def _draw_strip(model: Diffusion, device: torch.device, config: DiffusionEvaluationConfig, pictures: Pictures) -> None:
    strip: list[Tensor] = []
    labels = torch.arange(STRIP_IMAGES, device=device) % CLASSES
    model.generate(labels, torch.Generator().manual_seed(config.seed), strip=strip)
    shown = [strip[round(number * (len(strip) - 1) / 11)].cpu() for number in range(12)]
    rows = torch.stack(shown, dim=1).flatten(0, 1)      # an image a row, from noise on the left
    save_grid(rows, pictures.add("denoising", "what the network takes for the finished digit, from the first step to "
                                              "the last"), 12, [str(label) for label in labels.tolist()])


def _draw_guidance(model: Diffusion, metrics: ImageMetrics, labels: Tensor, config: DiffusionEvaluationConfig,
                   device: torch.device, pictures: Pictures) -> None:
    """Draw agreement and distance by the weight of the guidance, which buys agreement with variety."""
    agreement, distance = [], []
    for weight in config.guidance_sweep:
        figures = metrics.measure(_generate(model, labels, config.seed, device, weight), labels)
        agreement.append(figures["label_agreement"])
        distance.append(figures["frechet_distance"])
    figure, axes = figure_and_axes(6, 3)
    axes.plot(config.guidance_sweep, agreement, marker="o", color="C0")
    axes.set_xlabel("weight of the guidance")
    axes.set_ylabel("classifier agrees", color="C0")
    right = axes.twinx()
    right.plot(config.guidance_sweep, distance, marker="s", color="C1")
    right.set_ylabel("Fréchet distance", color="C1")
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("guidance", f"obedience and distance at several weights, {len(labels)} images "
                                                  "each"))
