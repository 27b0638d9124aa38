"""What a stage declares: everything that the rest of the project knows of it stands in its declaration.

A declaration is data. How a stage becomes a cached, versioned, tracked and registered task is in `tasks/execution`.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["dataset", "model", "report"]


@dataclass(frozen=True)
class Resources:
    """What a stage can make use of."""

    devices: int = 0
    """Accelerators, where there are any; 0 for a stage that runs on the processor alone."""


ONE_DEVICE = Resources(devices=1)


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
    inputs: dict[str, str | tuple[str, ...]]
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
    resources: Resources = field(default_factory=Resources)
    in_service: dict[str, str] = field(default_factory=dict)
    """Argument of `run` to the stage whose model in the release in service it is given; nothing where there is none."""
    outside: str = ""
    """`module:function` that gives the digests of inputs from outside, such as the user's own files, from the stage's
    config and the workspace's folder."""

    @property
    def input_stages(self) -> tuple[str, ...]:
        """The stages whose artifacts it takes, each once, in the order of the declaration."""
        names = [name for given in self.inputs.values() for name in ((given,) if isinstance(given, str) else given)]
        return tuple(dict.fromkeys(names))

    @property
    def folder(self) -> str:
        """The folder of the workspace in which its artifacts lie."""
        return {"dataset": "data", "model": "models", "report": "reports"}[self.kind]
