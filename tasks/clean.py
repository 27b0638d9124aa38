"""Cleaning as a task: every removed document has a reason."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import clean

    return clean.run(config.clean, collected=inputs["collect"], out_dir=out_dir, reporter=context.reporter)


STAGE = Stage(name="clean", core="genai_core.stages.clean", settings=("clean",), inputs=("collect",),
              kind="dataset", compute=_compute, describe="repair, filter, deduplicate, mask and decontaminate")

clean = stage_task(STAGE)
