"""Reinforcement learning from human feedback as a task."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import rlhf

    return rlhf.run(config.rlhf, instruct=inputs["instruct"], reward=inputs["reward"], cleaned=inputs["clean"],
                    out_dir=out_dir, training=context.training())


STAGE = Stage(name="rlhf", core="genai_core.stages.rlhf", settings=("rlhf",), inputs=("instruct", "reward", "clean"),
              kind="model", compute=_compute, describe="raise the reward, held near the instruct model")

rlhf = stage_task(STAGE)
