"""The stage promote of the families: whether the figures of their evaluation meet the gates of the preset."""

from pathlib import Path

from genai_core.config.release import PromoteConfig
from genai_core.context import Context, Result
from genai_core.evaluation.release.gates import figures_by_stage, judge


def run(config: PromoteConfig, *, evaluate: Path, out_dir: Path, context: Context) -> Result:
    """Write `gates.json` with the verdict of each gate. Raises InputError for a gate on a figure that is not there."""
    return judge(config, figures_by_stage(evaluate, {}), {}, {}, out_dir, context.reporter)
