"""What later stages need of the data is told once it is clean, before anything is trained."""

import json

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.stages import clean, collect
from tasks import data_checks
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

    def made(label: str, **more) -> PipelineRun:
        config = load_pipeline("smoke", {
            "collect.replace_sources": True, "reward.sources": ["reviews"],
            "collect.sources.reviews": {"kind": "files", "paths": ["reviews.jsonl"], "licence": "own",
                                        "content": "labelled"},
            "evaluate.gold": {"task": "reviews", "label": label}, "clean.near_duplicate_threshold": 1,
            "collect.validation_fraction": 0.1, "collect.test_fraction": 0.1, **more})
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


def test_a_single_prompt_to_measure_on_is_refused_once_the_data_is_clean(cleaned, monkeypatch):
    run = cleaned("positive")
    monkeypatch.setattr(data_checks, "_records", lambda counts, split, lesson: 1 if split == "validation" else 9)
    with pytest.raises(InputError, match=r"rlhf\.tasks: .* have 1 records in the validation split whose question could "
                                         "be a prompt, of at least 2 that are needed"):
        check_data(run)


@pytest.mark.parametrize("count", [1, 2])
def test_given_preferences_are_counted_once_the_data_is_clean(count, cleaned, tmp_path):
    rows = [json.dumps({"prompt": f"What do you say of film {number}?", "chosen": f"It is film {number}, and fine.",
                        "rejected": f"Nothing of film {number}.", "split": "train"}) for number in range(count)]
    (tmp_path / "choices.jsonl").write_text("\n".join(rows))
    choices = {"kind": "files", "paths": ["choices.jsonl"], "licence": "own", "content": "preferences"}
    run = cleaned("positive", **{"collect.sources.choices": choices, "reward.sources": ["reviews", "choices"],
                                 "rlhf.tasks": ["reviews"], "rlhf.method": "dpo", "rlhf.dpo": {"pairs": "given"}})
    if count == 2:
        return check_data(run)
    with pytest.raises(InputError, match=r"rlhf\.dpo\.pairs: given takes preferences, and reviews, choices offer "
                                         "1 for train beside the gold reward's, at least two are needed"):
        check_data(run)


def test_vllm_that_cannot_sample_is_told_before_anything_is_trained(cleaned, monkeypatch, tmp_path):
    monkeypatch.setenv("GENAI_VLLM", "/nowhere/vllm")
    with pytest.raises(InputError, match="no command: install vLLM"):
        check_data(cleaned("positive", **{"rlhf.sampler": "vllm"}))
    command = tmp_path / "vllm"
    command.touch(0o755)
    monkeypatch.setenv("GENAI_VLLM", str(command))
    with pytest.raises(InputError, match=r"rlhf\.sampler: .* set runtime\.processes to 1 \(it is 2\)"):
        check_data(cleaned("positive", **{"rlhf.sampler": "vllm", "runtime.processes": 2}))


def test_a_reward_function_that_cannot_be_used_is_told_before_anything_is_trained(cleaned, monkeypatch):
    def refuse(rewards):
        raise InputError(f"{', '.join(rewards)} cannot be used")

    monkeypatch.setattr(data_checks, "check_functions", refuse)
    with pytest.raises(InputError, match="reward_model cannot be used"):
        check_data(cleaned("positive"))
