"""From raw text to a promoted chat model: the stages that tasks/language_model.py declares, in their order."""

import logging
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.approval import approval
from flows.parameters import (
    NOTHING_ELSE,
    NOTHING_SET,
    Amount,
    Depth,
    Fields,
    OptionalStage,
    Preset,
    StageName,
    overrides_of,
)
from flows.pipeline_run import Limits, Request, make_all, opened, run_name
from tasks.execution.freshness import champion_of_the_same_data
from tasks.execution.task import make
from tasks.pipeline import PipelineRun
from tasks.registry.promotion import OtherChampion, conclude
from tasks.registry.versions import figures_of

logger = logging.getLogger("tasks")


@flow(name="train-llm", flow_run_name=run_name)
def train_llm(preset: Preset = "laptop", depth: Depth = 0, force: tuple[StageName, ...] = (),
              until: OptionalStage = "", only: OptionalStage = "", only_when_data_changed: bool = False,
              preset_file: str = "", max_hours: Amount = 0.0, max_cost: Amount = 0.0, approval_hours: Amount = 0.0,
              overrides: dict[str, Any] = NOTHING_ELSE, fields: Fields = NOTHING_SET) -> Any:
    """Train a language model through every stage; what was made before from the same inputs is taken as it is.

    Args:
        preset: Where every value comes from that is not set below.
        depth: The one dial, up to 64; 0 is the preset's. Width, heads, learning rates and token budget follow.
        force: Stages to execute although their results are there.
        until: The last stage to run; empty for all.
        only: Run this stage alone; what comes before it must be there.
        only_when_data_changed: Do nothing when the model in service was made from the data that there is now.
        preset_file: Path of a YAML file of your own on the machine that runs the flow, in place of the preset.
        max_hours: Stop at a checkpoint after this many hours; 0 for no limit. The same run continues from it.
        max_cost: Likewise, once the run has cost this much by `runtime.price_per_hour`.
        approval_hours: Before a release comes into service, wait this long for a person's word; 0 asks nobody.
        overrides: Anything, as "stage.field" to value, for example "collect.sources.trivia.enabled" to false.
        fields: Fields of single stages. What is left empty comes from the preset.
    """
    request = Request(preset_file or preset, overrides_of(depth, fields, overrides), force, until, only,
                      limits=Limits(max_hours, max_cost, approval_hours))
    if only_when_data_changed:
        champion = champion_of_the_same_data(request.config())
        if champion:
            return Completed(name="Skipped", message=f"{champion} was made from the same data")
    with opened(request) as run:
        make_all(run, run.stages)
        if "promote" in run.artifacts:      # `stages` may end before it
            _conclude(run, request)
    return figures_of(run)


def _conclude(run: PipelineRun, request: Request) -> None:
    """Act on the gates; where another release came into service meanwhile, judge once more, against that one."""
    while True:
        before = run.held_against
        try:
            conclude(run, approval(request), before)
            return
        except OtherChampion as other:
            logger.warning("%s", other)
            make(run, run.stages[-1])
            if run.held_against == before:      # nothing that judging again could mend
                raise


if __name__ == "__main__":
    train_llm()
