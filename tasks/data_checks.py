"""What later stages need of the data, checked as soon as it is clean and before anything is trained."""

import logging
from collections.abc import Sequence

from genai_core.config.pipeline import PipelineConfig
from genai_core.config.tasks import Lesson
from genai_core.data.instruction.examples import TABLES
from genai_core.errors import InputError
from genai_core.evaluation.prerequisites import check_gold_share, check_good_label, gaps_of_tasks
from tasks.pipeline import PipelineRun
from tasks.store.artifacts import read_manifest

logger = logging.getLogger("tasks")

Counts = dict[str, float]


def check_data(run: PipelineRun) -> None:
    """Raises InputError that names the field which asks for data that the sources do not have, of those stages that the
    run goes on to; what the evaluation will lack is told."""
    cleaned = run.artifacts["clean"].directory(run.workspace)
    counts = read_manifest(cleaned)["metrics"]
    config = run.config
    assert isinstance(config, PipelineConfig)
    stages = _up_to(config.stage_names, run.until)
    if "tokenize" in stages:
        for split in ("train", "validation", "test"):
            if not _offered(counts, split, "documents", ()):
                more = "" if split == "train" else (f", or raise collect.{split}_fraction; of a source with a column "
                                                     "`split` that column alone decides")
                raise InputError(f"collect.sources: once the data is clean no document is left for the {split} split; "
                                 f"add text{more}")
    if "instruct" in stages:
        for name, lesson in config.mixture.lessons.items():
            if not _records(counts, "train", lesson):
                raise InputError(f"tasks.{name}: the cleaned data has no {lesson.content} to fine-tune on; set "
                                 "examples to 0 or switch a source for it on")
    gold = config.evaluate.gold
    if "reward" in stages:
        named = config.reward.sources
        # as judgements() has it: labelled texts are judged where their source is named and a label counts as good
        tables = ("ratings", "preferences", *(["labelled"] if named and gold.label else []))
        for split in ("train", "validation"):
            judged = sum(_offered(counts, split, table, named) for table in tables)
            if judged < 2:
                raise InputError(f"reward.sources: {', '.join(named) or 'the sources'} offer {judged:,.0f} judgements "
                                 f"({', '.join(tables)}) for {split}, at least two are needed; bring more, or raise "
                                 f"collect.{split}_fraction")
        if "labelled" in tables and _offered(counts, "train", "labelled", named):
            check_good_label(cleaned, gold, named, "the labelled training records of reward.sources")
    if "rlhf" in stages and "evaluate" in stages:
        if gold.task:
            check_good_label(cleaned, gold, config.tasks[gold.task].sources, f"the training records of {gold.task}")
        else:
            check_gold_share(cleaned, gold, config.reward.sources)
    if "evaluate" in stages:
        for gap in gaps_of_tasks(config.active_tasks, cleaned):
            logger.warning(gap)
    if "rlhf" in stages:
        for split in ("train", "validation", "test"):
            if not any(_records(counts, split, lesson) for lesson in config.questions.lessons.values()):
                raise InputError(f"rlhf.tasks: {', '.join(config.questions.lessons)} have no record in the {split} "
                                 "split whose question could be a prompt; switch a source on or hold more out")


def _records(counts: Counts, split: str, lesson: Lesson) -> float:
    table = "labelled" if lesson.content == "labelled" else TABLES[lesson.content]
    return _offered(counts, split, table, lesson.sources)


def _offered(counts: Counts, split: str, table: str, sources: Sequence[str]) -> float:
    """Number of records of a table in a split, from some sources or from all; `clean` counts both sources and parts."""
    if sources:
        return sum(counts.get(f"{split}/{table}/{source}", 0) for source in sources)
    return sum(count for name, count in counts.items()
               if name.startswith(f"{split}/{table}/") and name.count("/") == 2)


def _up_to(stages: Sequence[str], until: str) -> Sequence[str]:
    return stages[:stages.index(until) + 1] if until in stages else stages
