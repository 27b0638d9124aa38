"""What later stages need of the data, checked as soon as it is clean and before anything is trained."""

from genai_core.config.pipeline import PipelineConfig
from genai_core.config.training import INSTRUCTION_TASKS
from genai_core.errors import InputError
from tasks.pipeline import PipelineRun
from tasks.store.artifacts import read_manifest


def check_data(run: PipelineRun) -> None:
    """Raises InputError that names the field which asks for data that the sources do not have."""
    counts = read_manifest(run.artifacts["clean"].directory(run.workspace))["metrics"]
    config = run.config
    assert isinstance(config, PipelineConfig)
    for task in INSTRUCTION_TASKS:
        offered = "sentiment" if task == "continuation" else task
        if getattr(config.instruct, task) and not counts.get(f"train/{offered}"):
            raise InputError(f"instruct.{task}: asks for {getattr(config.instruct, task):,} chats, but the cleaned "
                             "data has none; set it to 0 or switch a source for it on")
    for split in ("validation", "test"):
        if not counts.get(f"{split}/documents"):
            raise InputError(f"collect.{split}_fraction: no document is held out for {split}; raise it or add "
                             "documents")
    every = config.reward.sources
    for split, needed, sources in (("train", config.reward.batch_size, every), ("validation", 2, every[:1]),
                                   ("test", 2, every[:1])):
        rated = sum(counts.get(f"{split}/ratings/{source}", 0) for source in sources)
        if rated < needed:
            raise InputError(f"reward.sources: {', '.join(sources)} offer {rated:,.0f} rated texts for {split}, at "
                             f"least {needed} are needed; switch a source of ratings on")
    for split in ("train", "test"):
        if not counts.get(f"{split}/sentiment"):
            raise InputError(f"rlhf: its prompts are openings of labelled reviews, and the {split} split has none; "
                             "switch a source of reviews on")
