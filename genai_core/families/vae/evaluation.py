"""The evaluation of the autoencoders: reconstruction against PCA, samples by distance, and what collapse looks like."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genai_core.context import Context, Result
from genai_core.families.images.config import ImageEvaluationConfig
from genai_core.families.images.digits import load_digits
from genai_core.families.images.evaluation import ImageMetrics, balanced_labels, evenly
from genai_core.families.report import DATA, Columns, Pictures, write_evaluation
from genai_core.families.vae.generation import load_vae
from genai_core.families.vae.model import Vae, divergence
from genai_core.families.vae.objective import held_out_bound
from genai_core.hardware import choose_device
from genai_core.pictures import figure_and_axes, save_grid, save_picture

WALK_STEPS = 12


def run(config: ImageEvaluationConfig, *, data: Path, classifier: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of each autoencoder and of PCA of the same size, and the pictures."""
    reporter = context.reporter
    device = choose_device(context.device)
    images, labels = load_digits(data, "test")
    training_images, _ = load_digits(data, "train")
    metrics = ImageMetrics(classifier, images, device)
    loaded = {name: load_vae(directory, device) for name, directory in models.items()}
    pictures = Pictures(out_dir)
    sampled_labels = balanced_labels(config.images)
    columns: Columns = {}
    for name, model in loaded.items():
        generator = torch.Generator().manual_seed(config.seed)
        generated = model.generate(sampled_labels.to(device), generator).cpu()
        reconstructed = _reconstruct(model, images.to(device), labels.to(device)).cpu()
        columns[name] = {**held_out_bound(model, images.to(device), labels.to(device)),
                         "squared_error": (reconstructed - images).square().mean().item(),
                         **metrics.measure(generated, sampled_labels)}
        if not model.shape.classes:
            del columns[name]["label_agreement"]      # it knows no labels
        save_grid(generated[:40], pictures.add(f"samples-{name}", f"{name}: samples from the prior"), 10)
        reporter.note(f"{name}: ELBO {columns[name]['elbo']:.1f} nats, distance "
                      f"{columns[name]['frechet_distance']:.1f}")
    first = next(iter(loaded.values()))
    columns["baseline"] = _pca(training_images, images, first.shape.latent_size, metrics, config)
    columns["real"] = {"frechet_distance": metrics.distance(evenly(training_images, config.images))}
    _draw(loaded, images.to(device), labels.to(device), pictures)
    return write_evaluation(columns, pictures, out_dir)


@torch.no_grad()
def _reconstruct(model: Vae, images: Tensor, labels: Tensor) -> Tensor:
    mean, _ = model.encode(images, labels)
    return torch.sigmoid(model.decode(mean, labels))


def _pca(train: Tensor, test: Tensor, components: int, metrics: ImageMetrics, config: ImageEvaluationConfig
         ) -> dict[str, float]:
    """Figures of PCA with as many components as the code has dimensions; samples are from the Gaussian of its codes."""
    from sklearn.decomposition import PCA

    fitted = PCA(components, svd_solver="full").fit(train.flatten(1).numpy())
    rebuilt = fitted.inverse_transform(fitted.transform(test.flatten(1).numpy()))
    codes = np.random.default_rng(config.seed).normal(size=(config.images, components))
    sampled = fitted.inverse_transform(codes * np.sqrt(fitted.explained_variance_))
    images = torch.from_numpy(sampled).float().clamp(0, 1).view(-1, *test.shape[1:])
    return {"squared_error": float(np.square(rebuilt - test.flatten(1).numpy()).mean()),
            **{name: value for name, value in metrics.measure(images, balanced_labels(config.images)).items()
               if name != "label_agreement"}}


@torch.no_grad()
def _draw(models: dict[str, Vae], images: Tensor, labels: Tensor, pictures: Pictures) -> None:
    some = torch.arange(12) * len(images) // 12      # the images lie in the order of their labels
    rows = [images[some]] + [_reconstruct(model, images[some], labels[some]) for model in models.values()]
    save_grid(torch.cat(rows), pictures.add(f"{DATA}reconstructions", "held-out digits and their reconstructions"), 12,
              ["real", *models])
    first = next(iter(models.values()))
    ends = first.encode(images[some], labels[some])[0]
    share = torch.linspace(0, 1, WALK_STEPS, device=images.device)[:, None]
    walks = [torch.sigmoid(first.decode(ends[pair] * (1 - share) + ends[pair + 1] * share,
                                        labels[:1].expand(WALK_STEPS))) for pair in range(0, 12, 2)]
    save_grid(torch.cat(walks), pictures.add("latent-walk", "straight lines through the latent space, between the "
                                                           "codes of two held-out digits"), WALK_STEPS)
    figure, axes = figure_and_axes(6, 3)
    for name, model in models.items():
        rates = divergence(*model.encode(images, labels)).mean(0).sort(descending=True).values
        axes.plot(range(1, len(rates) + 1), rates.cpu(), marker="o", markersize=3, label=name)
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_xlabel("latent dimension, ordered")
    axes.set_ylabel("divergence from the prior, nats")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("latent-use", "how much each latent dimension tells: at zero, its posterior is "
                                                    "the prior and the decoder learns nothing from it"))
