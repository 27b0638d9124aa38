"""Quantization as a task: the chat model in eight and in four bits."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import quantize

    return quantize.run(config.quantize, model=inputs["rlhf"], tokens=inputs["tokenize"], out_dir=out_dir,
                        reporter=context.reporter)


STAGE = Stage(name="quantize",
              core="genai_core.stages.quantize",
              settings=("quantize",),
              inputs=("rlhf", "tokenize"),
              kind="model",
              compute=_compute,
              describe="store the weights in eight and four bits")

quantize = stage_task(STAGE)
