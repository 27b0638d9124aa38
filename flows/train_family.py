"""Another generative family through the same stages: its declaration in tasks/families.py is the list of them."""

from typing import TYPE_CHECKING, Any, Literal

from prefect import flow

from flows.parameters import NOTHING_ELSE
from flows.pipeline_run import Request, make_all, opened, run_name
from tasks.catalog import FAMILIES
from tasks.registry.promotion import conclude
from tasks.registry.versions import figures_of

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[*FAMILIES]


@flow(name="train-family", flow_run_name=run_name)
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
    with opened(request) as run:
        make_all(run, request.stages)
        conclude(run)
    return figures_of(run)
