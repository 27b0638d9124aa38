"""The evaluation of the diffusion model: distance, coverage and obedience beside the autoencoder's, with and without
guidance, and how an image comes out of the noise."""

from pathlib import Path

import torch
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.families.diffusion.config import DiffusionEvaluationConfig
from genai_core.families.diffusion.generation import load_diffusion
from genai_core.families.diffusion.model import Diffusion
from genai_core.families.images.digits import CLASSES, load_digits
from genai_core.families.images.evaluation import ImageJudge, asked_labels, evenly
from genai_core.families.report import Pictures, write_evaluation
from genai_core.families.vae.generation import load_vae
from genai_core.hardware import choose_device
from genai_core.pictures import figure_and_axes, save_grid, save_picture

STRIP_IMAGES = 10


def run(config: DiffusionEvaluationConfig, *, data: Path, classifier: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of `diffusion`, of the same without guidance, and of `conditional_vae`, and the pictures."""
    reporter = context.reporter
    where = choose_device(context.device)
    judge = ImageJudge(classifier, load_digits(data, "test")[0], where)
    model, autoencoder = load_diffusion(models["diffusion"], where), load_vae(models["conditional_vae"], where)
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    asked = asked_labels(config.images)
    guided = _make(model, asked, config.seed, where, model.shape.guidance)
    columns["diffusion"] = judge.judge(guided, asked)
    columns["without_guidance"] = judge.judge(_make(model, asked, config.seed, where, 0.0), asked)
    made = autoencoder.generate(asked.to(where), torch.Generator().manual_seed(config.seed)).cpu()
    columns["baseline"] = judge.judge(made, asked)
    columns["real"] = {"frechet_distance": judge.distance(evenly(load_digits(data, "train")[0], config.images))}
    for name, figures in columns.items():
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.3f}" for figure, value in figures.items()))
    save_grid(guided[:40], pictures.add("samples", "samples of the diffusion model, asked for 0 to 9 in each row"), 10)
    save_grid(made[:40], pictures.add("samples-vae", "samples of the conditional autoencoder, asked for the same"), 10)
    _draw_strip(model, where, config, pictures)
    _draw_guidance(model, judge, asked[:config.sweep_images], config, where, pictures)
    return write_evaluation(columns, pictures, out_dir)


def _make(model: Diffusion, labels: Tensor, seed: int, device: torch.device, guidance: float,
          steps: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([model.generate(part.to(device), generator, guidance, steps).cpu() for part in labels.split(250)])


def _draw_strip(model: Diffusion, device: torch.device, config: DiffusionEvaluationConfig, pictures: Pictures) -> None:
    strip: list[Tensor] = []
    labels = torch.arange(STRIP_IMAGES, device=device) % CLASSES
    model.generate(labels, torch.Generator().manual_seed(config.seed), strip=strip)
    shown = [strip[round(number * (len(strip) - 1) / 11)].cpu() for number in range(12)]
    rows = torch.stack(shown, dim=1).flatten(0, 1)      # an image a row, from noise on the left
    save_grid(rows, pictures.add("denoising", "what the network takes for the finished digit, from the first step to "
                                              "the last"), 12, [str(label) for label in labels.tolist()])


def _draw_guidance(model: Diffusion, judge: ImageJudge, asked: Tensor, config: DiffusionEvaluationConfig,
                   device: torch.device, pictures: Pictures) -> None:
    """Guidance buys obedience with variety."""
    agreement, distance = [], []
    for weight in config.guidance_sweep:
        judged = judge.judge(_make(model, asked, config.seed, device, weight), asked)
        agreement.append(judged["label_agreement"])
        distance.append(judged["frechet_distance"])
    figure, axes = figure_and_axes(6, 3)
    axes.plot(config.guidance_sweep, agreement, marker="o", color="C0")
    axes.set_xlabel("weight of the guidance")
    axes.set_ylabel("classifier agrees", color="C0")
    right = axes.twinx()
    right.plot(config.guidance_sweep, distance, marker="s", color="C1")
    right.set_ylabel("Fréchet distance", color="C1")
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("guidance", f"obedience and distance at several weights, {len(asked)} images "
                                                  "each"))
