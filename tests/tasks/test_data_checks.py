"""What later stages need of the data is told once it is clean, before anything is trained."""

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.stages import clean, collect
from tasks.data_checks import check_data
from tasks.pipeline import PipelineRun
from tasks.store.artifacts import KeyParts
from tasks.store.workspace import Workspace

SUBJECTS = ("film", "play", "book", "song", "dance", "meal", "walk", "garden")


@pytest.fixture
def cleaned(tmp_path, recorder):
    """A run whose one source of labelled reviews is clean, by the label that counts as good."""
    labels = (("good", "positive"), ("bad", "negative"))
    lines = [f'{{"text": "This is the {word} {subject} number {number} that we have seen in a year of days.", '
             f'"label": "{label}"}}\n'
             for number in range(20) for subject in SUBJECTS for word, label in labels]
    (tmp_path / "reviews.jsonl").write_text("".join(lines))

    def made(label: str) -> PipelineRun:
        config = load_pipeline("smoke", {
            "collect.replace_sources": True, "reward.sources": ["reviews"],
            "collect.sources.reviews": {"kind": "files", "paths": ["reviews.jsonl"], "licence": "own",
                                        "content": "labelled"},
            "evaluate.gold": {"task": "reviews", "label": label}, "clean.near_duplicate_threshold": 1,
            "collect.validation_fraction": 0.1, "collect.test_fraction": 0.1})
        run = PipelineRun(config, Workspace(tmp_path))
        context = Context(tmp_path, recorder, tmp_path)
        for stage, core, inputs in (("collect", collect, {}), ("clean", clean, {"collected": "collect"})):
            parts = KeyParts(stage, {"label": label}, {}, {})
            directory = run.store.directory(stage, "dataset", parts.key)
            given = {name: run.artifacts[made].directory(run.workspace) for name, made in inputs.items()}
            with run.store.new(directory, parts) as scratch:
                result = core.run(getattr(config, stage), **given, out_dir=scratch, context=context)
                run.artifacts[stage] = run.store.commit(scratch, directory, parts, result.metrics)
        return run

    return made


def test_labelled_texts_of_named_sources_are_judgements_enough(cleaned):
    check_data(cleaned("positive"))


def test_a_label_that_no_record_has_ends_the_run_once_the_data_is_clean(cleaned):
    with pytest.raises(InputError, match=r"evaluate\.gold\.label: 'Positive' is none of the labels of .*, which have "
                                         "the labels 'negative', 'positive'"):
        check_data(cleaned("Positive"))
