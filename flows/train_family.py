"""Another generative family through the same stages: its declaration in tasks/families.py is the list of them."""

from typing import TYPE_CHECKING, Any, Literal

from prefect import flow

from flows.approval import approval
from flows.parameters import NOTHING_ELSE, Amount
from flows.pipeline_run import Limits, Request, make_all, opened, run_name
from tasks.catalog import FAMILIES
from tasks.registry.promotion import conclude
from tasks.registry.versions import figures_of

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[*FAMILIES]


@flow(name="train-family", flow_run_name=run_name)
def train_family(family: FamilyName, preset: Literal["laptop", "smoke"] = "laptop", force: tuple[str, ...] = (),
                 until: str = "", only: str = "", preset_file: str = "", max_hours: Amount = 0.0,
                 max_cost: Amount = 0.0, approval_hours: Amount = 0.0, overrides: dict[str, Any] = NOTHING_ELSE
                 ) -> dict[str, float]:
    """Train and judge a family of generative models; what was made before from the same inputs is taken as it is.

    Args:
        family: Which family; its page in docs/ tells what it is.
        preset: Where every value comes from that is not set below.
        force: Stages to execute although their results are there.
        until: The last stage to run; empty for all.
        only: Run this stage alone; what comes before it must be there.
        preset_file: Path of a YAML file on the machine that runs the flow, in place of the preset.
        max_hours: Stop at a checkpoint after this many hours; 0 for no limit. The same run continues from it.
        max_cost: Likewise, once the run has cost this much by `runtime.price_per_hour`.
        approval_hours: Before a release comes into service, wait this long for a person's word; 0 asks nobody.
        overrides: Anything, as "stage.field" to value, for example "vae.latent_size" to 8.
    """
    request = Request(preset_file or preset, overrides, force, until, only, family,
                      Limits(max_hours, max_cost, approval_hours))
    with opened(request) as run:
        make_all(run, run.stages)
        conclude(run, approval(request))
    return figures_of(run)
