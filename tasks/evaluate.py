"""Evaluation as a task: the same table for every language model of the run."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import evaluate

    models = {"base": inputs["pretrain"], "instruct": inputs["instruct"], "rlhf": inputs["rlhf"],
              "int8": inputs["quantize"] / "int8", "int4": inputs["quantize"] / "int4"}
    return evaluate.run(config.evaluate, models=models, reward=inputs["reward"], tokens=inputs["tokenize"],
                        cleaned=inputs["clean"], completion_tokens=config.rlhf.completion_tokens,
                        opening_words=config.rlhf.prompt_words, out_dir=out_dir, reporter=context.reporter,
                        device=config.runtime.device)


STAGE = Stage(name="evaluate",
              core="genai_core.stages.evaluate",
              settings=("evaluate", "rlhf.completion_tokens", "rlhf.prompt_words"),
              inputs=("pretrain", "instruct", "reward", "rlhf", "quantize", "tokenize", "clean"),
              kind="report",
              compute=_compute,
              describe="one table of figures for every model, baselines beside it")

evaluate = stage_task(STAGE)
