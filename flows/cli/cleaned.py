"""The cleaned data of a preset, from which commands take questions."""

from pathlib import Path

from flows.cli.commands.shared import opened_workspace
from genai_core.config.pipeline import PipelineConfig
from genai_core.config.presets import parse_overrides
from genai_core.errors import InputError
from genai_core.roots import allow_everything
from tasks.config import load_config


def cleaned_data(preset: str, settings: list[str]) -> tuple[PipelineConfig, Path]:
    """The config of a preset and the folder of its cleaned data. Raises InputError where no run has made it yet."""
    allow_everything()
    config = load_config(preset, "", parse_overrides(settings))
    workspace = opened_workspace()
    from tasks.catalog import stages_for
    from tasks.execution.plan import plan
    from tasks.store.artifacts import Store

    assert isinstance(config, PipelineConfig)
    lines = plan(config, workspace, stages=[each for each in stages_for(config) if each.name in ("collect", "clean")])
    if any(line.state != "hit" for line in lines):
        raise InputError(f"the data of preset {preset} is not here, of which the prompts are; "
                         f"`genai run --preset {preset} --until clean` makes it, or give --prompts FILE")
    return config, Store.of(workspace).directory("clean", "dataset", lines[-1].key)
