"""Instruction tuning as a task: the base model learns to answer."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import instruct

    return instruct.run(config.instruct, base=inputs["pretrain"], cleaned=inputs["clean"],
                        opening_words=config.rlhf.prompt_words, out_dir=out_dir, training=context.training())


STAGE = Stage(name="instruct",
              core="genai_core.stages.instruct",
              settings=("instruct", "rlhf.prompt_words"),
              inputs=("pretrain", "clean"),
              kind="model",
              compute=_compute,
              describe="fine-tune on chats")

instruct = stage_task(STAGE)
