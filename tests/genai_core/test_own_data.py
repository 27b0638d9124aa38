"""A user's own sources in a preset: what they replace, the tasks that they get, and what goes with the old data."""

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.errors import InputError

MINE = {"kind": "files", "paths": ["x.jsonl"], "licence": "x"}
TEXT = ("wikitext-2", "reviews")
SMOKE = load_pipeline("smoke")


def preset(tmp_path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_pipeline(str(path))


OWN_SOURCE = "mine: {kind: files, paths: [x.jsonl], licence: x, content: CONTENT}"


@pytest.mark.parametrize(("replace", "kept"), [
    ("true", ()), ("all_but_text", TEXT), ("false", tuple(SMOKE.collect.sources))])
def test_a_preset_says_which_sources_of_the_one_that_it_extends_stay(tmp_path, replace, kept):
    content = "chats" if kept else "documents"
    source = OWN_SOURCE.replace("CONTENT", content)
    config = preset(tmp_path, f"extends: smoke\ncollect: {{replace_sources: {replace}, sources: {{{source}}}}}\n")
    assert tuple(config.collect.sources) == (*kept, "mine")
    overridden = load_pipeline("smoke", {"collect.sources.mine": MINE | {"content": content},
                                         "collect.replace_sources": {"true": True, "false": False}.get(replace,
                                                                                                       replace)})
    assert overridden == config, "on the command line it means the same"


@pytest.mark.parametrize("word", ["yes please", "all", "all_but_texts", 2])
def test_another_word_is_refused(word):
    for overrides in ({"collect.replace_sources": word}, {"collect": {"replace_sources": word}}):
        with pytest.raises(InputError, match=r"collect\.replace_sources: .* is none of true, false and all_but_text"):
            load_pipeline("smoke", overrides)


def test_what_is_said_of_the_old_data_goes_with_it_and_all_else_stays(tmp_path):
    source = OWN_SOURCE.replace("CONTENT", "preferences")
    config = preset(tmp_path, f"extends: smoke\ncollect: {{replace_sources: all_but_text, sources: {{{source}}}}}\n")
    assert set(config.tasks) == {"mine"}
    assert (config.reward.sources, config.rlhf.tasks, config.evaluate.gold.task) == ((), ("mine",), "")
    assert config.reward.context_length == config.instruct.context_length
    assert {gate.figure for gate in config.promote.gates.values()} == {"quantize/int8/size_ratio",
                                                                       "quantize/int4/size_ratio"}
    assert set(config.promote.pairs) == set(SMOKE.promote.pairs)
    assert config.promote.pairs["rlhf-keeps"].gold_reward == SMOKE.promote.pairs["rlhf-keeps"].gold_reward < 0
    assert (config.pretrain, config.instruct) == (SMOKE.pretrain, SMOKE.instruct)
    assert config.rlhf.steps == SMOKE.rlhf.steps and config.promote.margins == SMOKE.promote.margins


def test_what_a_preset_says_itself_stays_beside_what_it_leaves_behind(tmp_path):
    source = OWN_SOURCE.replace("CONTENT", "labelled")
    config = preset(tmp_path, f"""extends: smoke
collect: {{replace_sources: true, sources: {{{source}}}}}
tasks: {{spam: {{content: labelled, sources: [mine], prompt: "Spam? {{text}}"}}}}
promote: {{gates: {{good: {{figure: instruct/spam_accuracy, comparison: ">=", bound: 0.9}}}}}}
""")
    assert set(config.tasks) == {"spam"} and "good" in config.promote.gates


def test_a_preset_on_top_keeps_what_the_one_below_has_put_in_its_place(tmp_path):
    below = tmp_path / "below.yaml"
    below.write_text(f"extends: smoke\ncollect: {{replace_sources: true, sources: "
                     f"{{{OWN_SOURCE.replace('CONTENT', 'documents')}}}}}\n")
    config = load_pipeline(str(below), {"depth": 2})
    above = tmp_path / "above.yaml"
    above.write_text(f"extends: {below}\ndepth: 2\n")
    assert load_pipeline(str(above)) == config and tuple(config.collect.sources) == ("mine",)


@pytest.mark.parametrize("content", ["labelled", "pairs", "problems", "chats", "preferences", "ratings"])
def test_an_own_source_that_no_task_names_gets_a_task_called_like_it(content):
    """Ratings teach where they are of conversations, which a look into the files tells."""
    looked = []

    def recognise(name, fields):
        looked.append(name)
        return content, True

    declared = {"collect.sources.mine": MINE | {"content": content}}
    for overrides in (declared, {"collect.sources.mine": MINE}):
        config = load_pipeline("smoke", overrides, recognise)
        assert config.tasks["mine"].content == content and config.tasks["mine"].sources == ("mine",)
        assert config.collect.sources["mine"].content == content, "the look is kept in the config"
    named = load_pipeline("smoke", declared | {"tasks.other": {"content": content, "sources": ["mine/part"]}},
                          recognise)
    assert "other" in named.tasks and "mine" not in named.tasks
    assert set(looked) == {"mine"}


@pytest.mark.parametrize("source", [MINE | {"content": "documents"}, MINE | {"content": "chats", "enabled": False},
                                    {"kind": "random_text"}])
def test_text_and_what_is_switched_off_gets_none(source):
    config = load_pipeline("smoke", {"collect.sources.mine": source}, lambda name, fields: (fields["content"], False))
    assert set(config.tasks) == set(SMOKE.tasks)


def test_rated_texts_get_none():
    config = load_pipeline("smoke", {"collect.sources.mine": MINE}, lambda name, fields: ("ratings", False))
    assert set(config.tasks) == set(SMOKE.tasks) and config.collect.sources["mine"].content == "ratings"


@pytest.mark.parametrize(("overrides", "message"), [
    ({"tasks": 5}, "tasks: Input should be a valid dictionary"),
    ({"tasks.mine": {"content": "chats", "sources": 5}}, "tasks.mine.sources: Input should be a valid tuple"),
    ({"collect.sources": 5}, "collect.sources: Input should be a valid dictionary"),
    ({"collect.sources.mine": 5}, "collect.sources.mine: Input should be"),
    ({"collect.sources.mine": {"kind": "files", "content": "chats"}}, "collect.sources.mine.paths: Field required"),
    ({"instruct": None}, "instruct: Field required"),
])
def test_a_mistake_in_ones_own_data_is_one_line_that_names_the_field(overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        load_pipeline("laptop", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broken", ["collect: 5", "tasks: [a]", "collect: {sources: [a]}", "reward: 5",
                                    "promote: {pairs: [a]}", "promote: {gates: {a: 5}}"])
def test_a_broken_preset_below_is_told_or_left_behind_and_never_a_crash(tmp_path, broken):
    (tmp_path / "below.yaml").write_text(f"extends: smoke\n{broken}\n")
    for replace in (True, "all_but_text"):
        try:
            load_pipeline(str(tmp_path / "below.yaml"), {"collect.replace_sources": replace,
                                                         "collect.sources.mine": {"kind": "random_text"}})
        except InputError as error:
            assert broken.partition(":")[0] in str(error) and "\n" not in str(error)
    with pytest.raises(InputError):
        load_pipeline(str(tmp_path / "below.yaml"))
