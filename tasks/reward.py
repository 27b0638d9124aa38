"""Reward modelling as a task: human ratings become a scalar head."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import reward

    return reward.run(config.reward, instruct=inputs["instruct"], cleaned=inputs["clean"], out_dir=out_dir,
                      training=context.training())


STAGE = Stage(name="reward", core="genai_core.stages.reward", settings=("reward",), inputs=("instruct", "clean"),
              kind="model", compute=_compute, describe="learn to order texts as human raters do")

reward = stage_task(STAGE)
