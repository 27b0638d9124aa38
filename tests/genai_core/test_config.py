"""Configs: every preset loads, the dial can be overridden, and a mistake names its field."""

import pytest

from genai_core.config.dial import dial, heads_for_keys
from genai_core.config.pipeline import load_pipeline
from genai_core.config.presets import parse_overrides, preset_names
from genai_core.errors import InputError
from genai_core.models.transformer import parameter_count, transformer_config
from genai_core.training.estimate import estimate


def test_the_presets_are_there_and_load():
    assert set(preset_names()) == {"smoke", "laptop", "finetune", "gpu", "cluster", "speedrun", "arithmetic"}
    for name in preset_names():
        load_pipeline(name)


def test_the_gpu_preset_is_of_the_124m_class():
    config = load_pipeline("gpu")
    assert 110e6 < parameter_count(transformer_config(config.pretrain, config.tokenize.vocab_size)) < 140e6


def test_the_dial_sets_what_nobody_overrides():
    config = load_pipeline("laptop", {"depth": 5, "pretrain.hidden_size": 192})
    assert config.pretrain.layers == 5 and config.pretrain.hidden_size == 192
    assert config.pretrain.feed_forward_size == dial(5)["pretrain"]["feed_forward_size"]


@pytest.mark.parametrize("depth", range(1, 33))
def test_every_depth_is_a_valid_model(depth):
    config = load_pipeline("laptop", {"depth": depth})
    assert config.pretrain.heads % heads_for_keys(depth) == 0
    sizes = estimate("pretrain", config)
    assert sizes is not None and sizes.flops > 0 and sizes.memory_bytes > 16 * sizes.parameters


def test_the_estimate_of_rlhf_counts_the_replayed_rows():
    without, with_them = (estimate("rlhf", load_pipeline("laptop", {"rlhf.replay_rows": rows})) for rows in (0, 32))
    assert without is not None and with_them is not None and without.tokens == with_them.tokens
    assert with_them.flops > 1.5 * without.flops and with_them.memory_bytes > without.memory_bytes


def test_the_memory_of_alignment_counts_the_models_that_lie_beside_the_policy():
    def memory(**changes):
        return estimate("rlhf", load_pipeline("laptop", {f"rlhf.{name}": value for name, value in changes.items()})
                        ).memory_bytes

    weights = 4 * estimate("instruct", load_pipeline("laptop")).parameters
    verified = {"tasks": ["trivia"], "rewards": {"right": {"kind": "exact_answer"}}}
    assert memory() - memory(**verified) == weights, "the reward model"
    adapted = estimate("rlhf", load_pipeline("laptop", {"rlhf.lora": {"rank": 4}}))
    of_training = 3 * weights - 16 * adapted.trainable_parameters
    assert memory() - adapted.memory_bytes == weights + of_training, "the reference"


def test_a_reward_model_makes_no_logits():
    small, large = (estimate("reward", load_pipeline("laptop", {"tokenize.vocab_size": size})) for size in (1024, 8192))
    assert large.memory_bytes - small.memory_bytes == 16 * (large.parameters - small.parameters)


def test_ppo_samples_once_for_all_steps_on_a_batch():
    def flops(**changes):
        return estimate("rlhf", load_pipeline("laptop", {"rlhf.replay_rows": 0, **{
            f"rlhf.{name}": value for name, value in changes.items()}})).flops

    four = {"method": "ppo", "ppo.epochs": 4}
    assert flops(**four) == pytest.approx(flops() * (1 + 1 / 4) / 2)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"depth": 0}, "depth: 0 is not a whole number from 1 to 64"),
    ({"depth": "deep"}, "depth: 'deep' is not"),
    ({"instruct.epoch": 2}, r"instruct.epoch: no such field; did you mean epochs\?"),
    ({"pretain.layers": 2}, r"pretain: no such field; did you mean pretrain\?"),
    ({"pretrain.learning_rate": -1}, "pretrain.learning_rate: .*greater than 0.*got -1"),
    ({"pretrain.heads": 3, "pretrain.key_value_heads": 2}, "heads 3 is not a multiple of key_value_heads 2"),
    ({"pretrain.batch_size": 10, "pretrain.accumulation_steps": 3}, "batch_size 10 is not a multiple"),
    ({"rlhf.batch_size": 10}, "not a multiple of group_size"),
    ({"instruct.context_length": 512}, "instruct.context_length 512 is longer than pretrain.context_length"),
    ({"collect.sources.wikitext-2.sha256": "abc"}, "collect.sources.wikitext-2.sha256"),
    ({"collect.sources.mine": {"kind": "files", "paths": ["a"]}}, "collect.sources.mine.licence: Field required"),
    ({"collect.sources.reveiws.enabled": False}, "collect.sources.reveiws: no source is called so, and a new one "),
    ({"collect.sources.mine": {"kind": "file"}}, "collect.sources.mine: kind 'file' is none of archive, arithmetic, "),
    ({"depth.x": 1}, "depth.x: depth holds a value"),
    ({"tasks.trivia.sources": ["trivai"]}, r"tasks.trivia.sources: there is no source 'trivai' among wikitext-2, "),
    ({"tasks.trivia.sources": ["trivai/easy"]}, "tasks.trivia.sources: there is no source 'trivai/easy' among"),
    ({"reward.sources": ["wader"]}, "reward.sources: there is no source 'wader' among"),
    ({"rlhf.tasks": ["continuatoin"]}, "rlhf.tasks: there is no task 'continuatoin' among trivia, "),
    ({"evaluate.gold.task": "sentimnet"}, "evaluate.gold.task: there is no task 'sentimnet' among"),
    ({"evaluate.gold.label": ""}, "evaluate.gold: task and label belong together"),
    ({"tokenize.sources": ["reviews/imdb"]}, "tokenize.sources: 'reviews/imdb' is a part of a source, .* 'reviews'"),
    ({"evaluate.gold.task": "trivia"}, "evaluate.gold.task: trivia is of problems, and labels alone tell what is good"),
    ({"tasks.trivia.content": "quiz"}, "tasks.trivia.content: Input should be 'documents', "),
    ({"tasks.trivia.question": 5}, r"tasks.trivia.question: no such field"),
    ({"tasks.sentiment.prompt": "Good? {txt}"}, "tasks.sentiment: prompt: {txt} is not known of labelled"),
    ({"promote.pairs.base-keeps.against": "parent"}, "promote.pairs.base-keeps.against: base is made from no model"),
])
def test_a_mistake_is_one_line_that_names_the_field(overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        load_pipeline("laptop", overrides)
    assert "\n" not in str(caught.value)


def test_what_is_no_finite_number_is_refused_before_anything_starts():
    for field in ("clean.max_mean_word_length", "pretrain.gradient_clip"):
        with pytest.raises(InputError, match=rf"{field}: Input should be a finite number"):
            load_pipeline("smoke", {field: float("inf")})


def test_switching_every_source_off_is_refused():
    names = load_pipeline("laptop").collect.sources
    with pytest.raises(InputError, match="every source is switched off"):
        load_pipeline("laptop", {f"collect.sources.{name}.enabled": False for name in names})


def test_values_on_the_command_line_are_yaml():
    assert parse_overrides(["a.b=1e-3", "a.c=[x, y]", "a.d=true"]) == {"a.b": "1e-3", "a.c": ["x", "y"], "a.d": True}
    assert load_pipeline("laptop", parse_overrides(["pretrain.learning_rate=1e-3"])).pretrain.learning_rate == 1e-3
    with pytest.raises(InputError, match=r"write it as stage\.field=value"):
        parse_overrides(["nonsense"])


def test_a_preset_file_extends_another_and_removes_with_null(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\ncollect: {sources: {trivia: null}}\ntasks: {trivia: null}\n")
    config = load_pipeline(str(path))
    assert "trivia" not in config.collect.sources and config.depth == load_pipeline("smoke").depth
    assert set(config.tasks) == set(load_pipeline("smoke").tasks) - {"trivia"}


def test_a_source_that_a_task_names_cannot_be_removed_alone():
    with pytest.raises(InputError, match=r"tasks\.trivia\.sources: there is no source 'trivia' among"):
        load_pipeline("smoke", {"collect.sources.trivia": None})


@pytest.mark.parametrize(("content", "message"), [
    ("a: [", "not valid YAML"), ("- a", "a preset is a mapping"), ("extends: nope", "unknown preset 'nope'"),
])
def test_a_broken_preset_file_is_named(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_pipeline(str(path))


def test_presets_in_a_circle_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {path}")
    with pytest.raises(InputError, match="in a circle"):
        load_pipeline(str(path))


def test_the_estimate_of_adapters_counts_what_is_trained_and_less_memory():
    whole, adapted = (estimate("instruct", load_pipeline("laptop", changes))
                      for changes in ({}, {"instruct.lora.rank": 8}))
    assert whole.trainable_parameters == whole.parameters
    shapes = 3 * (192 + 192 + 2 * (192 + 64) + 192 + 192 + 3 * (192 + 512))      # three blocks of the preset
    assert adapted.trainable_parameters == 8 * shapes
    assert adapted.parameters == whole.parameters + adapted.trainable_parameters
    saved = 12 * whole.parameters - 16 * adapted.trainable_parameters
    assert whole.memory_bytes - adapted.memory_bytes == saved > 0
    assert 2 / 3 < adapted.flops / whole.flops < 0.8


def test_a_target_of_adapters_that_is_no_layer_ends_the_run_before_it_begins():
    with pytest.raises(InputError, match=r"rlhf.lora.targets: no linear layer is called 'qproj'; there are q_proj,"):
        load_pipeline("laptop", {"rlhf.lora.targets": ["qproj"]})
    assert load_pipeline("laptop", {"instruct.lora": {}}).instruct.lora.rank == 16
