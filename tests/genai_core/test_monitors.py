"""Monitors end a training at its last good state, and say so."""

import copy
import json

import pytest
import torch

from genai_core.config.training import MonitorConfig
from genai_core.context import Context
from genai_core.errors import TrainingDiverged
from genai_core.training.alignment.monitors import verdict
from genai_core.training.loop import train
from tests.conftest import Interrupted, die_after
from tests.genai_core.trainings import rewarded_by, rlhf

BEFORE = {"held_out_kl": 0.0, "held_out_entropy": 2.0, "held_out_length": 20.0, "held_out_distinct_2": 0.8,
          "held_out_reward": 0.0, "held_out_gold": 0.0}
GOOD = {"held_out_kl": 3.0, "held_out_entropy": 1.5, "held_out_length": 15.0, "held_out_distinct_2": 0.7,
        "held_out_reward": 1.0}


def curves_of(*points):
    return {name: [(10 * number, values[name]) for number, values in enumerate(points, start=1)] for name in points[0]}


@pytest.mark.parametrize(("figure", "value", "monitor", "words"), [
    ("held_out_kl", 30.5, "kl", "the KL to the instruct model is 30.5 nats a completion, above the budget of 30"),
    ("held_out_entropy", 0.09, "entropy", "the entropy fell to 0.09 nats a token, below 0.05 of the instruct"),
    ("held_out_length", 4.9, "length", "completions have 4.9 tokens in place of 20"),
    ("held_out_length", 81.0, "length", "completions have 81 tokens in place of 20"),
    ("held_out_distinct_2", 0.39, "distinct_2", "of the pairs of words in all answers 39.0% are different ones in"),
    ("held_out_reward", None, "reward", "held_out_reward is not a number any more")])
def test_a_monitor_strikes_at_its_bound_and_says_what_struck(figure, value, monitor, words):
    assert verdict(MonitorConfig(), BEFORE, curves_of(GOOD)) is None
    found = verdict(MonitorConfig(), BEFORE, curves_of(GOOD, {**GOOD, figure: value}))
    assert found.monitor == monitor and words in found.reason


def test_a_monitor_that_is_switched_off_never_strikes():
    off = MonitorConfig(kl_budget=None, entropy_floor=None, length_drift=None, distinct_floor=None)
    wild = {**GOOD, "held_out_kl": 1e3, "held_out_entropy": 0.0, "held_out_length": 1.0, "held_out_distinct_2": 0.0}
    assert verdict(off, BEFORE, curves_of(wild)) is None


@pytest.mark.parametrize(("gold", "reward", "strikes"), [
    ((0.2, 0.6, 0.5), (0.5, 1.0, 1.5), False),      # not by enough
    ((0.2, 0.6, 0.2), (0.5, 1.0, 1.5), True),
    ((0.2, 0.6, 0.2), (0.5, 1.0, 0.9), False),      # the reward fell too: that is no hacking
    ((-1.5, -1.6, -1.7), (0.5, 1.0, 1.5), True),    # below the instruct model's from the first look on
    ((-1.5, -1.6, -1.7), (-0.5, -0.4, -0.3), False),
])
def test_gold_that_falls_while_the_reward_rises_strikes(gold, reward, strikes):
    points = [{**GOOD, "held_out_gold": one, "held_out_reward": other} for one, other in zip(gold, reward, strict=True)]
    found = verdict(MonitorConfig(gold_drop=0.3), BEFORE, curves_of(*points))
    assert (found is not None and found.monitor == "gold") == strikes
    assert verdict(MonitorConfig(), BEFORE, curves_of(*points)) is None


def number_of_the_letter(answer):
    """A reward that can be hacked: how often an answer has the letter e."""
    return 10.0 * answer.count("e")


def hacked(tiny_model, tokenizer, prose, **changes):
    """A policy with nothing that holds it."""
    torch.manual_seed(0)
    model, objective, config = rlhf(copy.deepcopy(tiny_model), None, tokenizer, prose, **{
        "steps": 40, "batch_size": 16, "learning_rate": 1e-2, "kl_coefficient": 0.0, "replay_rows": 0,
        "truncation_penalty": 0.0, "monitors": {"every_steps": 4, "kl_budget": 8.0, "distinct_floor": None}, **changes})
    objective.rewards = rewarded_by(number_of_the_letter)
    objective.held_out = objective.prompts
    return model, objective, config


def context_of(folder, recorder, **changes):
    return Context(folder, recorder, device="cpu", compile="off", **{"checkpoint_seconds": 1e9, **changes})


@pytest.mark.parametrize("method", ["grpo", "ppo", "dpo", "best_of_n"])
def test_a_reward_that_can_be_hacked_ends_the_training_at_the_last_good_state(method, tiny_model, tokenizer, prose,
                                                                             tmp_path, recorder):
    changes = {"method": method, "ppo": {"epochs": 2}, "dpo": {"beta": 0.01}}
    model, objective, config = hacked(tiny_model, tokenizer, prose, **changes)
    trained = train(model, objective, config, context_of(tmp_path, recorder))
    stopped = trained.stopped
    assert stopped is not None and stopped.kept == stopped.step - 4 < config.steps
    kl = dict(trained.curves["held_out_kl"])
    assert kl[stopped.step] > 8 and all(value <= 8 for step, value in kl.items() if step < stopped.step)
    found = objective.held_out_figures(objective.policy)["held_out_kl"]
    assert found == pytest.approx(kl.get(stopped.kept, 0.0), abs=1e-5), "what is kept is not the state that was good"
    assert trained.metrics["steps"] == stopped.kept and trained.metrics["stopped_at_step"] == stopped.step
    assert trained.metrics["stopped_by_kl"] == kl[stopped.step]
    assert any(note.startswith(f"stopped at step {stopped.step} of 40: the KL to the instruct model is") and
               note.endswith(f"what is kept is the last good state, that of step {stopped.kept}")
               for note in recorder.notes)


def test_a_training_that_is_bad_from_its_first_look_leaves_the_model_as_it_was(tiny_model, tokenizer, prose, tmp_path,
                                                                              recorder):
    model, objective, config = hacked(tiny_model, tokenizer, prose,
                                      monitors={"every_steps": 2, "kl_budget": 1e-6, "distinct_floor": None})
    trained = train(model, objective, config, context_of(tmp_path, recorder))
    assert (trained.stopped.step, trained.stopped.kept) == (2, 0)
    assert all(torch.equal(value, tiny_model.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_stopped_training_that_was_interrupted_before_comes_to_the_same(tiny_model, tokenizer, prose, tmp_path,
                                                                         recorder, monkeypatch):
    model, objective, config = hacked(tiny_model, tokenizer, prose)
    whole = train(model, objective, config, context_of(tmp_path / "whole", recorder))
    last = whole.stopped.step - 1
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        die_after(patch, last)
        train(*hacked(tiny_model, tokenizer, prose), context_of(tmp_path / "cut", recorder, checkpoint_seconds=1e-9))
    again, objective, config = hacked(tiny_model, tokenizer, prose)
    resumed = train(again, objective, config, context_of(tmp_path / "cut", recorder))
    assert resumed.measurements["resumed_from_step"] == last
    assert resumed.stopped == whole.stopped and resumed.metrics == whole.metrics
    assert json.dumps(resumed.curves) == json.dumps(whole.curves)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_sampler_that_is_not_the_policy_ends_the_training_in_a_line(tiny_model, tokenizer, prose, tmp_path, recorder,
                                                                     monkeypatch):
    model, objective, config = hacked(tiny_model, tokenizer, prose)
    log_probs = objective.log_probs
    monkeypatch.setattr(objective, "log_probs", lambda model, sequences: log_probs(model, sequences) - 0.1)
    with pytest.raises(TrainingDiverged, match=r"other log-probabilities in training, by 0.1 nats a token where 0.001"):
        train(model, objective, config, context_of(tmp_path, recorder))


def test_the_ratio_starts_at_one_in_half_precision_too(tiny_model, tokenizer, prose):
    torch.manual_seed(0)
    _, objective, _ = rlhf(tiny_model, None, tokenizer, prose)
    objective.precision = torch.bfloat16
    batch = {name: tensor for name, tensor in objective.batch(0).items() if not name.startswith("replay_")}
    batch["kl_weight"] = torch.zeros_like(batch["kl_weight"])
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective.loss(batch)
    counts = batch["completion_mask"][:, 1:].sum(1)
    assert abs(loss + (batch["advantages"] * counts).sum()) < 1e-4      # Σ ρ A, and every ρ is 1
