"""The data stages alone: collect, clean, tokenize, and a version of the result."""

from typing import Any

from prefect import flow

from flows.parameters import NOTHING_ELSE, NOTHING_SET, Fields, Preset, StageName, overrides_of
from flows.pipeline_run import Request, make_all, opened, run_name


@flow(name="prepare-data", flow_run_name=run_name)
def prepare_data(preset: Preset = "laptop", force: tuple[StageName, ...] = (), preset_file: str = "",
                 overrides: dict[str, Any] = NOTHING_ELSE, fields: Fields = NOTHING_SET) -> str:
    """Collect, clean and tokenize the data of a preset, and version it with DVC; nothing is trained.

    Args:
        preset: Where every value comes from that is not set below.
        force: Stages to execute although their results are there.
        preset_file: Path of a YAML file of your own on the machine that runs the flow, in place of the preset.
        overrides: Anything, as "stage.field" to value, for example "collect.sources.trivia.enabled" to false.
        fields: Fields of single stages. What is left empty comes from the preset.
    """
    request = Request(preset_file or preset, overrides_of(0, fields, overrides), force)
    with opened(request) as run:
        make_all(run, [stage for stage in run.stages if stage.kind == "dataset"])
    return run.dataset_md5


if __name__ == "__main__":
    prepare_data()
