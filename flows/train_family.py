"""Another generative family through the same stages: its definition in tasks/families.py is the list of them."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow

from flows.parameters import NOTHING_ELSE
from flows.pipeline_run import Request, opened
from tasks.execution.version_data import version_data
from tasks.families import FAMILIES
from tasks.promote import act_on
from tasks.registry.versions import figures_of
from tasks.stage import stage_task
from tasks.store.artifacts import Artifact

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[*FAMILIES]


@flow(name="train-family")
def train_family(family: FamilyName, preset: Literal["laptop", "smoke"] = "laptop", force: tuple[str, ...] = (),
                 until: str = "", only: str = "", preset_file: str = "", overrides: dict[str, Any] = NOTHING_ELSE
                 ) -> dict[str, float]:
    """Train and judge a family of generative models; what was made before from the same inputs is taken as it is.

    Args:
        family: Which family; its page in docs/ tells what it is.
        preset: Where every value comes from that is not set below.
        force: Stages to execute although their results are there.
        until: The last stage to run; empty for all.
        only: Run this stage alone; what comes before it must be there.
        preset_file: Path of a YAML file on the machine that runs the flow, in place of the preset.
        overrides: Anything, as "stage.field" to value, for example "vae.latent_size" to 8.
    """
    request = Request(preset_file or preset, overrides, force, until, only, family)
    with opened(request, f"train-family {family}") as run:
        *stages, gates = request.stages
        last_dataset = [stage.name for stage in stages if stage.kind == "dataset"][-1]
        for stage in stages:
            tasks_of(family)[stage.name](run, *(run.artifacts[name] for name in stage.inputs))
            if stage.name == last_dataset:
                version_data(run, *run.artifacts.values())
        act_on(run, tasks_of(family)[gates.name](run, *(run.artifacts[name] for name in gates.inputs)))
    return figures_of(run)


@cache
def tasks_of(family: str) -> dict[str, Callable[..., Artifact]]:
    """The tasks of a family by the name of their stage."""
    return {stage.name: stage_task(stage) for stage in FAMILIES[family].all_stages}
