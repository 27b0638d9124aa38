"""What later stages need of the data, checked as soon as it is clean and before anything is trained."""

import logging
from collections.abc import Sequence

from genai_core.config.pipeline import PipelineConfig
from genai_core.config.tasks import Lesson
from genai_core.data.instruction.examples import TABLES
from genai_core.data.instruction.judgements import judgements
from genai_core.errors import InputError
from genai_core.evaluation.prerequisites import check_gold_share, check_good_label, gaps_of_tasks
from genai_core.inference.vllm.command import find_vllm
from genai_core.rewards.functions import check_functions
from genai_core.rewards.unit_tests import require_code_allowed
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
    if "rlhf" in stages and "reward" in stages and "evaluate" in stages:
        if gold.task:
            check_good_label(cleaned, gold, config.tasks[gold.task].sources, f"the training records of {gold.task}")
        else:
            check_gold_share(cleaned, gold, config.reward.sources)
    if "evaluate" in stages:
        for gap in gaps_of_tasks(config.active_tasks, cleaned):
            logger.warning(gap)
    if "rlhf" in stages:
        if config.rlhf.sampler == "vllm":
            find_vllm()
            if config.runtime.processes > 1:
                raise InputError("rlhf.sampler: vllm samples for a training of one process; take own, or set "
                                 f"runtime.processes to 1 (it is {config.runtime.processes})")
        if config.rlhf.takes_given_pairs:
            named = config.reward.sources
            given = len(judgements(cleaned, "train", named, gold).preferred) // 2
            if given < 2:
                raise InputError(f"rlhf.dpo.pairs: given takes preferences, and {', '.join(named) or 'the sources'} "
                                 f"offer {given:,} for train beside the gold reward's, at least two are needed; bring "
                                 "more, or take sampled")
        for name, reward in config.rlhf.rewards.items():
            if reward.kind == "unit_tests":
                require_code_allowed(name)
        check_functions(config.rlhf.rewards)
        for split, least in (("train", 1), ("validation", 2), ("test", 1)):      # of one there is no deviation
            found = sum(_records(counts, split, lesson) for lesson in config.questions.lessons.values())
            if found < least:
                raise InputError(f"rlhf.tasks: {', '.join(config.questions.lessons)} have {found:,.0f} records in the "
                                 f"{split} split whose question could be a prompt, of at least {least} that are "
                                 "needed; switch a source on or hold more out")


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
