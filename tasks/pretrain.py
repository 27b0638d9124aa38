"""Pretraining as a task: token files become the base model."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import pretrain

    return pretrain.run(config.pretrain, tokens=inputs["tokenize"], out_dir=out_dir, training=context.training())


STAGE = Stage(name="pretrain", core="genai_core.stages.pretrain", settings=("pretrain",), inputs=("tokenize",),
              kind="model", compute=_compute, describe="train the base model on the token files")

pretrain = stage_task(STAGE)
