"""The kinds of stages that families consist of, and the stages that several of them share.

A stage's name is the section of the family's config that it reads. A stage that two families share has one name, so
that what one family made the other one finds.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from genai_core.result import Result
from tasks import collect as collect_task
from tasks.stage import Context, Stage
from tasks.store.artifacts import read_manifest


def dataset(name: str, core: str, describe: str, argument: str = "collected", source: str = "collect") -> Stage:
    def compute(config: Any, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
        return import_module(core).run(getattr(config, name), **{argument: inputs[source]}, out_dir=out_dir,
                                       reporter=context.reporter)

    return Stage(name, core, (name,), (source,), "dataset", compute, describe)


def model(name: str, core: str, describe: str, **inputs: str) -> Stage:
    """`inputs`: argument of the core's function to the stage whose artifact it is given."""
    def compute(config: Any, paths: dict[str, Path], out_dir: Path, context: Context) -> Result:
        given = {argument: paths[stage] for argument, stage in inputs.items()}
        return import_module(core).run(getattr(config, name), **given, out_dir=out_dir, training=context.training())

    return Stage(name, core, (name,), tuple(inputs.values()), "model", compute, describe)


def pair_model(name: str, core: str, describe: str) -> Stage:
    """A model that turns one text into another: it also has to know how long they may be."""
    def compute(config: Any, paths: dict[str, Path], out_dir: Path, context: Context) -> Result:
        return import_module(core).run(getattr(config, name), lengths=config.pairs, data=paths["pairs"],
                                       out_dir=out_dir, training=context.training())

    settings = (name, "pairs.source_tokens", "pairs.target_tokens")
    return Stage(name, core, settings, ("pairs",), "model", compute, describe)


def evaluation(core: str, models: tuple[str, ...], **inputs: str) -> Stage:
    def compute(config: Any, paths: dict[str, Path], out_dir: Path, context: Context) -> Result:
        given = {argument: paths[stage] for argument, stage in inputs.items()}
        return import_module(core).run(config.evaluate, **given, models={name: paths[name] for name in models},
                                       out_dir=out_dir, reporter=context.reporter, device=config.runtime.device)

    return Stage("evaluate", core, ("evaluate",), (*inputs.values(), *models), "report", compute,
                 "judge every model of the family, with baselines beside them")


def _gates(config: Any, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import promote as gates

    figures = read_manifest(inputs["evaluate"])["metrics"]
    return gates.run(config.promote, figures=figures, out_dir=out_dir, reporter=context.reporter)


GATES = Stage("promote", "genai_core.stages.promote", ("promote",), ("evaluate",), "report", _gates,
              "hold the figures against the gates, move the alias champion")


COLLECT = collect_task.STAGE
CHARACTERS = dataset("characters", "genai_core.stages.tokenize", "cut the text into characters", argument="cleaned")
DIGITS = dataset("digits", "genai_core.families.images.digits", "the images as tensors")
PAIRS = dataset("pairs", "genai_core.families.encoder_decoder.pairs", "pairs of texts, and their vocabulary")
REVIEWS = dataset("reviews", "genai_core.families.classification.reviews", "labelled reviews, and their vocabulary")
CLASSIFIER = model("digit_classifier", "genai_core.families.images.train_classifier", "train the judge of generated images",
                   data="digits")
VAE = model("vae", "genai_core.families.vae.objective", "train a variational autoencoder", data="digits")
CONDITIONAL_VAE = model("conditional_vae", "genai_core.families.vae.objective", "train an autoencoder that is given the digit",
                        data="digits")
