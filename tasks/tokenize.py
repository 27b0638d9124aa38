"""Tokenizing as a task: a vocabulary, then flat token files."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import tokenize

    return tokenize.run(config.tokenize, cleaned=inputs["clean"], out_dir=out_dir, reporter=context.reporter)


STAGE = Stage(name="tokenize", core="genai_core.stages.tokenize", settings=("tokenize",), inputs=("clean",),
              kind="dataset", compute=_compute, describe="train the tokenizer and write the token files")

tokenize = stage_task(STAGE)
