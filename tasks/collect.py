"""Collecting as a task: the declared sources become one set of tables."""

from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.stage import Context, Stage, stage_task
from tasks.store.workspace import Workspace


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import collect

    return collect.run(config.collect, root=context.workspace.root, out_dir=out_dir, reporter=context.reporter)


def _file_digests(config: PipelineConfig, workspace: Workspace) -> dict[str, str]:
    """Files on this machine are inputs; archives and hub datasets are pinned by the config itself."""
    if not any(source.enabled and source.kind in ("files", "standard_library")
               for source in config.collect.sources.values()):
        return {}
    from genai_core.stages.collect import file_digests

    return file_digests(config.collect, workspace.root)


STAGE = Stage(name="collect", core="genai_core.stages.collect", settings=("collect",), inputs=(), kind="dataset",
              compute=_compute, describe="bring the declared sources into one set of tables",
              extra_inputs=_file_digests)

collect = stage_task(STAGE)
