"""Which stages a run has: those that its data allows, or those that are named and what they need."""

import pytest

from genai_core.config.pipeline import NEEDS, load_pipeline
from genai_core.config.pipeline import STAGE_NAMES as EVERY_STAGE
from genai_core.errors import InputError
from tasks.catalog import stages_for
from tasks.config import require_stages
from tasks.execution.plan import plan
from tasks.stage import FirstOf, Stage
from tasks.store.key import setting
from tasks.store.workspace import Workspace

STAGE_NAMES = tuple(name for name in EVERY_STAGE if name != "adopt")      # which only a base from outside gives
TEXT_ONLY = ("collect", "clean", "tokenize", "pretrain", "quantize", "evaluate", "promote")
WITH_CHATS = ("collect", "clean", "tokenize", "pretrain", "instruct", "quantize", "evaluate", "promote")
NO_JUDGEMENTS = "no source of ratings or preferences is switched on"


def own(*contents: str, **overrides):
    """The config of a user's own sources alone, one of each kind of content, as from files that were looked into."""
    sources = {f"collect.sources.{content}": {"kind": "files", "paths": [f"{content}.jsonl"], "licence": "x",
                                              "content": content} for content in contents}
    return load_pipeline("smoke", {"collect.replace_sources": True, **sources, **overrides},
                         lambda name, fields: (fields["content"], True))


@pytest.mark.parametrize(("contents", "stages"), [
    (["documents"], TEXT_ONLY), (["documents", "chats"], WITH_CHATS), (["documents", "problems"], WITH_CHATS),
    (["documents", "pairs"], WITH_CHATS), (["labelled"], WITH_CHATS), (["documents", "preferences"], STAGE_NAMES),
    (["documents", "ratings"], STAGE_NAMES), (["documents", "chats", "preferences"], STAGE_NAMES)])
def test_the_stages_are_those_that_the_data_allows(contents, stages):
    config = own(*contents)
    assert config.stage_names == stages
    assert tuple(stage.name for stage in stages_for(config)) == stages
    assert [name for name in STAGE_NAMES if config.why_not(name)] == [name for name in STAGE_NAMES
                                                                      if name not in stages]


def test_the_presets_have_every_stage():
    for preset in ("smoke", "laptop", "gpu", "cluster"):
        assert load_pipeline(preset).stage_names == STAGE_NAMES


def test_rated_texts_are_no_conversations_and_give_no_chat_model():
    config = load_pipeline("smoke", {
        "collect.replace_sources": True, "collect.sources.mine": {"kind": "random_text"},
        "collect.sources.rated": {"kind": "files", "paths": ["x.jsonl"], "licence": "x", "content": "ratings"}},
        lambda name, fields: (fields["content"], False))
    assert config.stage_names == TEXT_ONLY and config.why_not("reward").startswith("there is no instruct model")


@pytest.mark.parametrize(("contents", "prompts"), [
    (["preferences", "chats", "problems", "documents"], ("preferences",)), (["ratings", "chats"], ("ratings",)),
])
def test_the_prompts_of_rlhf_are_those_of_the_judged_answers_where_nobody_says_others(contents, prompts):
    config = own("documents", *(content for content in contents if content != "documents"))
    assert config.alignment_tasks == tuple(config.questions.lessons) == prompts
    other = own("documents", *(content for content in contents if content != "documents"), **{"rlhf.tasks": ["chats"]})
    assert other.rlhf.tasks == ("chats",)


@pytest.mark.parametrize(("named", "stages"), [
    (["pretrain"], ("collect", "clean", "tokenize", "pretrain")), (["collect"], ("collect",)),
    (["instruct"], ("collect", "clean", "tokenize", "pretrain", "instruct")),
    (["rlhf"], STAGE_NAMES[:7]), (["evaluate"], (*STAGE_NAMES[:4], "quantize", "evaluate")),
    (["promote", "instruct"], WITH_CHATS), (["promote"], TEXT_ONLY)])
def test_named_stages_run_with_those_that_they_need_and_no_others(named, stages):
    config = load_pipeline("smoke", {"stages": named})
    assert config.stage_names == stages
    for stage in stages_for(config):
        assert set(stage.input_stages) <= set(stages), "an input that no stage of the run makes"
    assert all(set(NEEDS[name]) <= set(stages) for name in stages)
    assert "rlhf" not in stages or "reward" in stages, "its reward model"


@pytest.mark.parametrize(("contents", "named", "message"), [
    (["documents"], "instruct", "stages: instruct cannot run: no chats or other tasks to fine-tune on"),
    (["documents"], "rlhf", "stages: rlhf cannot run: there is no instruct model"),
    (["documents", "chats"], "reward", f"stages: reward cannot run: {NO_JUDGEMENTS}"),
    (["documents", "chats"], "rlhf", f"stages: rlhf cannot run: {NO_JUDGEMENTS}"),
    (["documents"], "cook", "stages.0: Input should be 'adopt', 'collect', "),
    (["chats"], "collect", "collect.sources: no source of text is switched on, which a base model learns from; add "
     "one, or set collect.replace_sources to all_but_text"),
])
def test_a_stage_that_cannot_run_is_refused_with_the_reason(contents, named, message):
    with pytest.raises(InputError, match=message):
        own(*contents, stages=[named])


def test_a_source_that_is_switched_off_takes_its_task_and_the_stages_that_hang_on_it_along():
    off = ("trivia", "vader", "chitchat")
    config = load_pipeline("smoke", {f"collect.sources.{name}.enabled": False for name in off} | {
        "reward.sources": ["vader"]})
    assert set(config.active_tasks) == set(load_pipeline("smoke").tasks) - {"trivia"}
    assert set(config.mixture.lessons) == set(config.active_tasks)
    assert "instruct" in config.stage_names and config.why_not("reward") == config.why_not("rlhf") == NO_JUDGEMENTS


def test_labelled_texts_of_named_sources_are_judged_where_a_label_counts_as_good():
    named, good = {"reward.sources": ["labelled"]}, {"evaluate.gold": {"task": "labelled", "label": "good"}}
    assert own("labelled", **named, **good).stage_names == STAGE_NAMES
    for less in (named, good):
        assert own("labelled", **less).why_not("reward") == NO_JUDGEMENTS


VERIFIED = {"rlhf.rewards.right": {"kind": "number"}}


def test_rewards_that_verify_answers_need_problems_and_no_reward_model():
    config = own("documents", "problems", **VERIFIED)
    assert config.stage_names == tuple(name for name in STAGE_NAMES if name != "reward")
    assert config.why_not("reward") == "none of rlhf.rewards is a reward model"
    assert config.alignment_tasks == ("problems",)
    rlhf = next(stage for stage in stages_for(config) if stage.name == "rlhf")
    assert rlhf.input_stages == ("instruct", "clean", "tokenize")
    assert own("documents", "chats", **VERIFIED).why_not("rlhf").startswith("no task is left whose questions")


def test_beside_a_reward_model_problems_are_the_prompts_of_rewards_that_verify():
    both = {**VERIFIED, "rlhf.rewards.liked": {"kind": "reward_model"}}
    config = own("documents", "problems", "preferences", **both)
    assert config.stage_names == STAGE_NAMES and config.alignment_tasks == ("problems",)
    assert own("documents", "problems", **both).why_not("rlhf") == NO_JUDGEMENTS


def test_a_reward_model_that_rlhf_does_not_need_is_made_where_it_is_named_and_not_given_to_it():
    config = own("documents", "problems", "preferences", **VERIFIED)
    assert "reward" not in config.stage_names
    named = own("documents", "problems", "preferences", **VERIFIED, stages=["reward", "rlhf"])
    stages = {stage.name: stage for stage in stages_for(named)}
    assert "reward" in stages and "reward" not in stages["rlhf"].inputs
    assert "reward" not in own("documents", "problems", "preferences", **VERIFIED, stages=["rlhf"]).stage_names


def test_a_task_of_several_sources_stays_while_one_of_them_is_on():
    on = load_pipeline("smoke", {"collect.sources.chitchat.enabled": False})
    off = load_pipeline("smoke", {f"collect.sources.{name}.enabled": False for name in ("chitchat", "chatterbot")})
    assert "dialogue" in on.active_tasks and "dialogue" not in off.active_tasks


def test_a_task_on_a_source_that_brings_something_else_is_refused():
    with pytest.raises(InputError, match=r"tasks\.dialogue: trivia brings problems, and no chats"):
        load_pipeline("smoke", {"tasks.dialogue.sources": ["trivia", "chatterbot"]})


def test_a_task_without_examples_is_asked_and_not_learned():
    config = load_pipeline("smoke", {"tasks.trivia.examples": 0})
    assert "trivia" in config.active_tasks and "trivia" not in config.mixture.lessons
    none = load_pipeline("smoke", {f"tasks.{name}.examples": 0 for name in config.tasks})
    assert none.stage_names == TEXT_ONLY


def test_a_stage_that_the_run_does_not_have_is_refused_with_the_reason():
    config = own("documents", "chats")
    require_stages("--until", ["instruct", ""], config)
    with pytest.raises(InputError, match=f"--until: this run has no stage rlhf: {NO_JUDGEMENTS}"):
        require_stages("--until", ["rlhf"], config)
    with pytest.raises(InputError, match=r"--until: unknown stage 'cook'; there are collect, .*, instruct, quantize"):
        require_stages("--until", ["cook"], config)
    with pytest.raises(InputError, match="--force: unknown stage 'rlhf'"):
        require_stages("--force", ["rlhf"], load_pipeline("smoke", {"stages": ["instruct"]}))


def test_the_plan_shows_what_is_left_out_and_why(tmp_path):
    for content in ("documents", "chats"):
        (tmp_path / f"{content}.jsonl").touch()
    lines = {line.stage: line for line in plan(own("documents", "chats"), Workspace(tmp_path))
             if line.state == "left out"}
    assert {name: line.why for name, line in lines.items()} == {"reward": NO_JUDGEMENTS, "rlhf": NO_JUDGEMENTS}
    named = plan(load_pipeline("smoke", {"stages": ["tokenize"]}), Workspace(tmp_path))
    assert [line.stage for line in named] == list(STAGE_NAMES)
    assert {line.why for line in named[3:]} == {"not among `stages` and not needed by them"}
    assert not any(line.state == "left out" for line in plan(load_pipeline("smoke"), Workspace(tmp_path)))


STAGE = Stage("s", "core", "report", settings={"config": "s", "alignment": "alignment"},
              inputs={"model": FirstOf(("c", "b", "a")), "tokens": "t", "rlhf": "c", "both": ("t", "u")}, describe="",
              optional={"rlhf": "c", "alignment": "c"})


@pytest.mark.parametrize(("stages", "model"), [("abctu", "c"), ("abtu", "b"), ("atu", "a"), ("bctu", "c")])
def test_among_the_stages_of_a_run_the_first_model_is_taken_and_what_is_not_there_is_not_given(stages, model):
    among = STAGE.among(stages)
    assert among.inputs["model"] == model
    assert ("rlhf" in among.inputs) == ("alignment" in among.settings) == ("c" in stages)
    assert among.inputs["tokens"] == "t" and among.inputs["both"] == ("t", "u") and among.settings["config"] == "s"
    assert set(among.input_stages) <= set(stages)
    assert among.among(stages) == among, "a declaration for a run is one"


def test_the_declaration_itself_stands_for_every_run():
    assert STAGE.input_stages == ("c", "b", "a", "t", "u")


@pytest.mark.parametrize("contents", [["documents"], ["documents", "chats"], ["documents", "preferences"]])
def test_every_stage_of_a_run_finds_its_settings_and_its_inputs_among_earlier_ones(contents):
    config = own(*contents)
    stages = stages_for(config)
    names = [stage.name for stage in stages]
    for stage in stages:
        assert set(stage.input_stages) <= set(names[:names.index(stage.name)])
        for name in stage.settings.values():
            setting(config, name)
