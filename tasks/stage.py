"""What a stage declares: everything that the rest of the project knows of it stands in its declaration.

A declaration is data. How a stage becomes a cached, versioned, tracked and registered task is in `tasks/execution`.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["dataset", "model", "report"]


@dataclass(frozen=True)
class Resources:
    """What a stage can make use of."""

    devices: int = 0
    """Accelerators, where there are any; 0 for a stage that runs on the processor alone."""
    ranks: bool = False
    """Whether several processes can do it together, each on a device of its own: `runtime.processes`."""


ONE_DEVICE = Resources(devices=1)
RANKS = Resources(devices=1, ranks=True)


@dataclass(frozen=True)
class FirstOf:
    """The artifact of the first of these stages that a run has."""

    stages: tuple[str, ...]


Input = str | tuple[str, ...] | FirstOf


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline."""

    name: str
    core: str
    """Module of the core whose `run` computes it; what it reaches by imports is the stage's code."""
    kind: Kind
    settings: dict[str, str]
    """Argument of `run` to the part of the config that it is given, as `section` or `section.field`; the first argument
    is called `config`. `run` is handed nothing else of the config, so this is what the key holds of it."""
    inputs: dict[str, Input]
    """Argument of `run` to the stage whose artifact it is given, or to several: then a mapping by their names."""
    describe: str
    """What it does, in the words of the stage list."""
    title: str = ""
    """What its artifact is called on pages."""
    use: str = ""
    """What its models are for: the description of the registered model and the first words of its card."""
    figures: tuple[str, ...] = ()
    """Metrics that lists show, the most telling one first."""
    curves: tuple[str, ...] = ()
    """Curves of its training that the report shows, where there are such."""
    column: str = ""
    """Its column in the table of the evaluation; empty for its name."""
    again: str = ""
    """What is made again, and what is not, where only a part of its data is new: for plans."""
    resources: Resources = field(default_factory=Resources)
    optional: dict[str, str] = field(default_factory=dict)
    """Arguments of `run`, of settings and inputs, that it is given only where the run has the stage named here."""
    in_service: dict[str, str | FirstOf] = field(default_factory=dict)
    """Argument of `run` to the stage whose model in the release in service it is given, or to the first that the
    release has of several; nothing where no release is in service."""
    outside: str = ""
    """`module:function` that gives the digests of inputs from outside, such as the user's own files, from the stage's
    config and the workspace's folder."""

    @property
    def input_stages(self) -> tuple[str, ...]:
        """The stages whose artifacts it takes, each once, in the order of the declaration."""
        names = [name for given in self.inputs.values() for name in named(given)]
        return tuple(dict.fromkeys(names))

    def among(self, stages: Collection[str]) -> "Stage":
        """The declaration for a run of these stages: with the inputs and settings that there are."""
        left_out = {argument for argument, stage in self.optional.items() if stage not in stages}
        inputs: dict[str, Input] = {}
        for argument, given in self.inputs.items():
            if argument not in left_out:
                first = isinstance(given, FirstOf) and next(name for name in given.stages if name in stages)
                inputs[argument] = first or given
        settings = {argument: name for argument, name in self.settings.items() if argument not in left_out}
        return replace(self, inputs=inputs, settings=settings, optional={})

    @property
    def folder(self) -> str:
        """The folder of the workspace in which its artifacts lie."""
        return {"dataset": "data", "model": "models", "report": "reports"}[self.kind]


def named(given: Input) -> tuple[str, ...]:
    """The stages that a declaration names in one place."""
    if isinstance(given, FirstOf):
        return given.stages
    return (given,) if isinstance(given, str) else given
