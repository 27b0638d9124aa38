"""What a family of models is, and the kinds of stages that families consist of.

A stage's name is the section of the family's config that it reads. A stage that two families share has one name, so
that what one family made the other one finds.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_core.config.presets import PRESETS
from tasks import language_model
from tasks.stage import ONE_DEVICE, RANKS, Stage

if TYPE_CHECKING:
    from genai_core.families.config import FamilyConfig

GATES = Stage("promote", "genai_core.families.gates", "report", settings={"config": "promote"},
              inputs={"evaluate": "evaluate"}, describe="hold the figures against the gates, move the alias champion",
              title="Gates")


@dataclass(frozen=True)
class Family:
    """A family of models that are trained and judged together."""

    name: str
    title: str
    config: str
    """`module:class` of its config, which has a section for each stage."""
    stages: tuple[Stage, ...]
    """Between `collect` and `promote`, in the order in which they run; the evaluation is the last."""
    figures: tuple[str, ...]
    """Figures of the evaluation that tell how good a model is, the most telling one first."""
    shown_model: str
    """The model that `genai generate FAMILY` takes."""
    presets: Path | None = None
    """YAML file of its presets; by default `configs/families/NAME.yaml`."""

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        return (language_model.collect, *self.stages, GATES)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages if stage.kind == "model")

    @property
    def config_class(self) -> "type[FamilyConfig]":
        module, _, name = self.config.partition(":")
        found: type[FamilyConfig] = getattr(import_module(module), name)
        return found

    def load(self, preset: str, overrides: dict[str, Any] | None = None) -> "FamilyConfig":
        """The config of a preset, or of a YAML file, with `overrides` (`stage.field` to value) on top.

        Raises InputError, in one line that names the field, for anything that is not right.
        """
        from genai_core.families.config import load_family_config

        presets = self.presets or PRESETS / "families" / f"{self.name}.yaml"
        return load_family_config(self.config_class, self.name, presets, preset, overrides)


CURVES = ("loss", "validation_loss", "validation_accuracy")


def dataset(name: str, core: str, describe: str, argument: str = "collected") -> Stage:
    """A dataset made from the collected tables, which `run` is given as `argument`."""
    return Stage(name, core, "dataset", settings={"config": name}, inputs={argument: "collect"}, describe=describe,
                 title=_titled(name))


def model(name: str, core: str, describe: str, use: str, figures: tuple[str, ...], curves: tuple[str, ...] = CURVES,
          settings: dict[str, str] | None = None, **inputs: str) -> Stage:
    """A trained model; `inputs` map arguments of `run` to stages, `settings` further ones to fields of the config."""
    return Stage(name, core, "model", settings={"config": name, **(settings or {})}, inputs=dict(inputs),
                 describe=describe, title=_titled(name), use=use, figures=figures, curves=curves,
                 resources=RANKS)


def evaluation(core: str, models: tuple[str, ...], **inputs: str) -> Stage:
    """The evaluation of `models`, which `run` is given as a mapping from their names to their directories."""
    return Stage("evaluate", core, "report", settings={"config": "evaluate"}, inputs={**inputs, "models": models},
                 describe="judge every model of the family, with baselines beside them", title="Evaluation",
                 resources=ONE_DEVICE)


def _titled(name: str) -> str:
    return name.replace("_", " ").capitalize()
