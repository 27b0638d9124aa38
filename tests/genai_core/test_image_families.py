"""VAE, GAN and diffusion: formulas against closed forms, two players in one loop, and resuming to the bit."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits as sklearn_digits
from torch.distributions import Normal, kl_divergence

from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.families.diffusion import objective as diffusion
from genai_core.families.diffusion.config import DiffusionConfig
from genai_core.families.diffusion.model import Diffusion, DiffusionShape, noise_schedule
from genai_core.families.gan import objective as gan
from genai_core.families.gan.config import GanConfig
from genai_core.families.gan.model import Gan, GanShape
from genai_core.families.gan.objective import Adversarial
from genai_core.families.images import train_classifier as classify_digits
from genai_core.families.images.config import ClassifierConfig
from genai_core.families.images.digits import load_digits
from genai_core.families.images.evaluation import balanced_labels, evenly, frechet_distance
from genai_core.families.images.generation import open_image_model
from genai_core.families.vae import objective as vae
from genai_core.families.vae.config import VaeConfig
from genai_core.families.vae.model import Vae, VaeShape, divergence
from genai_core.models.kinds import open_model
from genai_core.training.curves import read_curves
from genai_core.training.loop import train
from tests.conftest import Interrupted, Recorder, die_after
from tests.genai_core import golden

TRAINING = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "evaluations": 2}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Scikit-learn's handwritten digits, enlarged to 28 × 28."""
    directory = tmp_path_factory.mktemp("digits")
    images, labels = sklearn_digits(return_X_y=True)
    pixels = torch.from_numpy(images.astype(np.float32)).view(-1, 1, 8, 8) / 16
    large = torch.nn.functional.interpolate(pixels, 28, mode="bilinear").mul(255).to(torch.uint8)
    for split, rows in (("train", slice(0, 300)), ("validation", slice(300, 350)), ("test", slice(350, 400))):
        save_file({"images": large[rows].contiguous(), "labels": torch.from_numpy(labels[rows])},
                  directory / f"{split}.safetensors")
    return directory


@pytest.fixture(scope="module")
def classifier(digits, tmp_path_factory, request):
    out = tmp_path_factory.mktemp("classifier")
    config = ClassifierConfig(**TRAINING | {"steps": 60, "batch_size": 32}, channels=8)
    result = classify_digits.run(config, data=digits, out_dir=out,
                                 context=Context(out / "checkpoints", Recorder(), device="cpu"))
    assert result.metrics["test_accuracy"] > 0.5
    return out


def trainers(digits, classifier):
    return {
        "vae": lambda out, run: vae.run(VaeConfig(**TRAINING, channels=4, conditional=True), data=digits, out_dir=out,
                                        context=run),
        "gan": lambda out, run: gan.run(GanConfig(**TRAINING, channels=4, objective="dcgan"), data=digits, out_dir=out,
                                        classifier=classifier, context=run),
        "wgan": lambda out, run: gan.run(GanConfig(**TRAINING, channels=4, objective="wgan", critic_steps=2),
                                         data=digits, out_dir=out, classifier=classifier, context=run),
        "diffusion": lambda out, run: diffusion.run(DiffusionConfig(**TRAINING, channels=8, noise_steps=20,
                                                                    sampling_steps=4), data=digits, out_dir=out,
                                                    context=run),
    }


@pytest.mark.parametrize("name", ["vae", "gan", "wgan", "diffusion"])
def test_resumed_equals_uninterrupted_to_the_bit(digits, classifier, tmp_path, recorder, monkeypatch, name):
    """Moving averages, statistics of batches and both players' optimizers included."""
    run = trainers(digits, classifier)[name]
    (tmp_path / "whole").mkdir()
    (tmp_path / "resumed").mkdir()
    whole = run(tmp_path / "whole", Context(tmp_path / "a", recorder, device="cpu", checkpoint_seconds=1e-9))
    die_after(monkeypatch, 3)
    again = Context(tmp_path / "b", recorder, device="cpu", checkpoint_seconds=1e-9)
    with pytest.raises(Interrupted):
        run(tmp_path / "resumed", again)
    monkeypatch.undo()
    resumed = run(tmp_path / "resumed", again)
    assert resumed.measurements["resumed_from_step"] == 3
    assert resumed.metrics == whole.metrics
    for file in ("model.safetensors", "curves.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "resumed" / file).read_bytes()
    images = open_model(tmp_path / "whole", torch.device("cpu")).make_images(5, None, 0)
    assert images.shape == (5, 1, 28, 28) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, open_model(tmp_path / "resumed", torch.device("cpu")).make_images(5, None, 0))


@pytest.mark.parametrize("name", ["vae", "gan", "wgan", "diffusion"])
def test_golden(digits, classifier, tmp_path, recorder, monkeypatch, name):
    monkeypatch.setitem(TRAINING, "steps", golden.STEPS)
    trainers(digits, classifier)[name](tmp_path, Context(tmp_path / "checkpoints", recorder, device="cpu"))
    golden.check(name, read_curves(tmp_path))


def test_each_step_changes_the_weights_of_its_player_alone(digits, classifier, tmp_path, recorder):
    config = GanConfig(**TRAINING | {"steps": 1}, channels=4, objective="dcgan", critic_steps=1, generator_steps=2)
    torch.manual_seed(0)
    model = Gan(GanShape(4, config.latent_size, batch_norm=True))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    objective = Adversarial(model, digits, classifier, config, torch.device("cpu"))
    assert [objective.player(step) for step in range(6)] == ["discriminator", "generator", "generator"] * 2
    train(model, objective, config, Context(tmp_path / "a", recorder, device="cpu"))
    changed = {name.split(".")[0] for name, parameter in model.named_parameters()
               if not torch.equal(parameter, before[name])}
    assert changed == {"discriminator"}


def test_the_gradient_penalty_is_zero_for_a_critic_of_slope_one_only(digits, classifier):
    config = GanConfig(**TRAINING, channels=4, objective="wgan")
    model = Gan(GanShape(4, config.latent_size, batch_norm=False))
    objective = Adversarial(model, digits, classifier, config, torch.device("cpu"))

    class Slope(torch.nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.slope = slope

        def forward(self, images):
            return self.slope * images[:, 0, 0, 0]

    real, fake, mixture = torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28), torch.rand(3, 1, 1, 1)
    for slope, expected in ((1.0, 0.0), (3.0, 3 * 4.0)):
        objective.model.discriminator = Slope(slope)
        assert objective._gradient_penalty(real, fake, mixture).item() == pytest.approx(expected, abs=1e-5)


def test_divergence_equals_that_of_torch_distributions():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(5, 3), torch.ones(5, 3)))
    assert torch.allclose(divergence(mean, log_variance), expected, atol=1e-6)


def test_an_autoencoder_generates_on_the_device_of_the_labels():
    """The device `meta` computes shapes alone, and like a GPU refuses to mix its tensors with those of the CPU."""
    model = Vae(VaeShape(4, 3, classes=0)).to("meta")
    images = model.generate(torch.zeros(2, dtype=torch.int64, device="meta"), torch.Generator().manual_seed(0))
    assert images.shape == (2, 1, 28, 28) and images.device.type == "meta"


def test_frechet_distance_is_zero_for_the_same_set_and_the_squared_shift_for_a_moved_one():
    features = np.random.default_rng(0).normal(size=(500, 4)) * [1, 2, 3, 4]
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + np.array([3, 0, 0, 4])) == pytest.approx(25, rel=1e-6)
    # of two diagonal Gaussians: the squared difference of the standard deviations
    assert frechet_distance(features, features * 2) == pytest.approx(
        np.square(features.mean(0)).sum() + np.var(features, axis=0, ddof=1).sum(), rel=0.02)


def test_the_noise_schedule_goes_from_image_to_noise_and_keeps_the_variance():
    kept = noise_schedule(100)
    assert kept[0] > 0.99 and kept[-1] < 1e-3 and (kept.diff() < 0).all()
    model = Diffusion(DiffusionShape(8, 100, 10, 0.0))
    torch.manual_seed(0)
    x, noise = torch.randn(4000, 1, 4, 4), torch.randn(4000, 1, 4, 4)
    for time in (0, 50, 99):
        noised = model.noised(x, torch.full((4000,), time), noise)
        assert noised.var().item() == pytest.approx(1.0, abs=0.02)


def test_sampling_with_a_perfect_network_gives_the_image_back(monkeypatch):
    model = Diffusion(DiffusionShape(8, 50, 10, 0.0))
    target = torch.rand(1, 1, 28, 28) * 2 - 1

    def perfect(x, times, labels, guidance):
        kept = model.alphas[times][:, None, None, None]
        return (x - kept.sqrt() * target) / (1 - kept).sqrt()

    monkeypatch.setattr(model, "predict", perfect)
    made = model.generate(torch.tensor([3, 4]), torch.Generator().manual_seed(0))
    assert torch.allclose(made, ((target + 1) / 2).expand(2, -1, -1, -1), atol=1e-3)


def test_guidance_moves_away_from_what_the_network_says_without_a_label():
    torch.manual_seed(0)
    model = Diffusion(DiffusionShape(8, 50, 10, 0.0))
    for parameter in model.average.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, times, labels = torch.randn(2, 1, 28, 28), torch.tensor([5, 9]), torch.tensor([1, 2])
    with_label = model.predict(x, times, labels, 0.0)
    without = model.predict(x, times, torch.full_like(labels, 10), 0.0)
    assert torch.allclose(model.predict(x, times, labels, 2.0), 3 * with_label - 2 * without, atol=1e-5)


def test_asked_for_what_it_cannot_do_a_model_says_so(digits, classifier, tmp_path, recorder):
    device = torch.device("cpu")
    out = tmp_path / "gan"
    out.mkdir()
    trainers(digits, classifier)["gan"](out, Context(tmp_path / "a", recorder, device="cpu"))
    with pytest.raises(InputError, match="trained without labels"):
        open_model(out, device).make_images(2, 7, 0)
    with pytest.raises(InputError, match="makes no images"):
        open_image_model(classifier, device)
    (out / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        open_image_model(out, device)
    with pytest.raises(InputError, match="not a readable set of images"):
        load_digits(tmp_path, "train")


def test_labels_are_balanced_and_a_sorted_source_is_sampled_evenly():
    assert torch.bincount(balanced_labels(100)).tolist() == [10] * 10
    assert evenly(torch.arange(100), 10).tolist() == list(range(0, 100, 10))
