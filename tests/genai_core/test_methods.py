"""Methods of alignment: what they learn from, what their configs allow, and that each raises what it is to raise."""

import pytest
import torch
from pydantic import ValidationError

from genai_core.config.pipeline import load_pipeline
from genai_core.config.release import Gold
from genai_core.config.training import RlhfConfig
from genai_core.context import Context
from genai_core.data.chat import encode_chat
from genai_core.data.instruction.preferences import encoded_preferences
from genai_core.errors import InputError
from genai_core.training.alignment.method import EACH
from genai_core.training.alignment.ppo import generalised_advantages, token_rewards
from genai_core.training.loop import train
from tests.genai_core.tables import preference, write_tables
from tests.genai_core.trainings import rewarded_by, rlhf

FIELDS = {"learning_rate": 1e-3, "batch_size": 8, "group_size": 4, "steps": 6}
CHANGES = {"grpo": {}, "ppo": {"ppo": {"epochs": 2, "value_coefficient": 0.5}, "steps": 60}, "dpo": {},
           "best_of_n": {}}


def share_of_the_letter(answer):
    """How much of an answer is the letter e."""
    return answer.count("e") / max(1, len(answer))


@pytest.mark.parametrize("method", list(CHANGES))
def test_every_method_raises_the_reward_on_prompts_that_it_is_not_trained_on(method, tiny_model, tokenizer, prose,
                                                                            tmp_path, recorder):
    torch.manual_seed(0)
    _, objective, config = rlhf(tiny_model, None, tokenizer, prose, method=method, batch_size=32, learning_rate=3e-3,
                                kl_coefficient=0.0, truncation_penalty=0.0,
                                monitors={"kl_budget": None, "distinct_floor": None},
                                **{"steps": 30, **CHANGES[method]})
    objective.rewards, objective.held_out = rewarded_by(share_of_the_letter), objective.prompts[:2] * 16
    objective.prompts = objective.prompts[2:]
    before = objective.before["held_out_reward"]
    train(objective.trained, objective, config, Context(tmp_path, recorder, device="cpu", compile="off"))
    assert objective.held_out_figures(objective.policy)["held_out_reward"] > 1.5 * before > 0


@pytest.mark.parametrize(("method", "beta", "more"), [
    ("grpo", 0.1, {"kl", "kl_weight"}), ("ppo", 0.1, {"kl", "kl_weight"}), ("dpo", 0.1, set()), ("grpo", 0, set()),
    ("ppo", 0, set()), ("best_of_n", 0.1, {"best_reward"})])
def test_the_curves_tell_of_the_kl_where_it_is_penalised(method, beta, more, tiny_model, tokenizer, prose):
    _, objective, _ = rlhf(tiny_model, None, tokenizer, prose, method=method, kl_coefficient=beta)
    figures = objective.figures(objective.batch(0))
    assert {name for name in figures if not name.startswith(EACH)} == {"reward", "truncated", "length"} | more


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_without_a_penalty_the_reference_reads_held_out_answers_alone_and_the_loss_is_that_of_a_weight_of_zero(
        method, tiny_model, tokenizer, prose):
    losses = []
    for beta in (0.0, 1e-12):
        torch.manual_seed(0)
        _, objective, _ = rlhf(tiny_model, None, tokenizer, prose, method=method, kl_coefficient=beta, replay_rows=0)
        read = []
        hidden = objective.reference.hidden
        objective.reference.hidden = lambda *given, of=hidden, read=read: read.append(1) or of(*given)
        with torch.no_grad():
            for parameter in objective.policy.parameters():      # away from the reference
                parameter.mul_(1.01)
        losses.append(objective.loss(objective.batch(0))[0].item())
        assert bool(read) == bool(beta)
        assert objective.held_out_figures(objective.policy)["held_out_kl"] != 0 and read
        tiny_model.load_state_dict(objective.reference.state_dict())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_best_of_n_is_the_completion_with_the_highest_reward(tiny_model, tokenizer, prose):
    _, objective, config = rlhf(tiny_model, None, tokenizer, prose, method="best_of_n")
    batch = objective.batch(0)
    rollout, rewards, _ = objective.sample(0, config.group_size)
    best = [max(range(first, first + 4), key=lambda row: rewards[row]) for first in (0, 4)]
    assert torch.equal(batch["ids"], rollout.sequences["ids"][best])
    assert torch.equal(batch["best_rewards"], rewards[best]) and objective.size(batch) == 8


def test_on_policy_pairs_are_the_best_and_the_worst_and_ties_teach_nothing(tiny_model, tokenizer, prose):
    _, objective, config = rlhf(tiny_model, None, tokenizer, prose, method="dpo", replay_rows=0)
    pairs, counted, _, _ = objective._sampled(0)
    rollout, rewards, _ = objective.sample(0, config.group_size)
    for number, pair in enumerate(pairs):
        group = rewards[4 * number:4 * number + 4]
        assert pair.chosen.ids == rollout.completion_ids[4 * number + int(group.argmax())]
        assert pair.rejected.ids == rollout.completion_ids[4 * number + int(group.argmin())]
    assert counted.tolist() == [1.0, 1.0]
    objective.rewards = rewarded_by(lambda answer: 0.0)
    objective.config = config.model_copy(update={"truncation_penalty": 0.0})
    batch = objective.batch(0)
    assert batch["counted"].tolist() == [0.0, 0.0] and objective.targets(batch) == 1
    assert objective.loss(batch)[0].item() == 0


def test_a_batch_of_ppo_serves_for_all_its_epochs_and_no_longer(tiny_model, tokenizer, prose):
    _, objective, _ = rlhf(tiny_model, None, tokenizer, prose, method="ppo", ppo={"epochs": 3})
    first, same, other = (objective.batch(step)["ids"] for step in (0, 2, 3))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_what_ppo_sampled_before_it_went_back_is_not_learned_from(tiny_model, tokenizer, prose):
    _, objective, _ = rlhf(tiny_model, None, tokenizer, prose, method="ppo", ppo={"epochs": 2}, replay_rows=0)
    ahead = objective.batch(4)["sampled_log_probs"]
    with torch.no_grad():      # as a checkpoint does that is gone back to
        for parameter in objective.policy.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    again = objective.batch(4)
    assert not torch.equal(again["sampled_log_probs"], ahead)
    now = objective.log_probs(objective.policy, again)[again["completion_mask"][:, 1:]]
    assert (now - again["sampled_log_probs"][again["completion_mask"][:, 1:]]).abs().max() < 1e-4


def test_completions_that_serve_for_several_steps_count_once(tiny_model, tokenizer, prose, tmp_path, recorder,
                                                             monkeypatch):
    shown = []
    monkeypatch.setattr(type(recorder), "progress", lambda _, *values, **figures: shown.append(values[:2]))
    _, objective, config = rlhf(tiny_model, None, tokenizer, prose, method="ppo", ppo={"epochs": 3}, steps=8)
    trained = train(objective.trained, objective, config, Context(tmp_path, recorder, device="cpu", compile="off"))
    assert trained.metrics["completions"] == 3 * 8
    assert [done for done, _ in shown] == [8, 8, 8, 16, 16, 16, 24, 24] and {total for _, total in shown} == {24}


def test_advantages_of_a_whole_look_ahead_are_the_reward_to_come_less_the_value():
    """λ = γ = 1: A_t is the sum of the rewards from t on, minus V_t; nothing outside of the mask counts."""
    rewards, values = torch.tensor([[9.0, 1.0, 2.0, 4.0, 9.0]]), torch.tensor([[7.0, 0.5, 0.25, 1.0, 7.0]])
    mask = torch.tensor([[False, True, True, True, False]])
    found = generalised_advantages(rewards, values, mask, 1.0, 1.0)
    assert found.tolist() == [[0.0, 7 - 0.5, 6 - 0.25, 4 - 1.0, 0.0]]


def test_the_score_comes_at_the_last_token_and_the_kl_at_each():
    mask = torch.tensor([[False, True, True, False], [False, True, False, False]])
    ratios = torch.tensor([[5.0, 1.0, 2.0, 5.0], [5.0, 3.0, 5.0, 5.0]])
    found = token_rewards(torch.tensor([10.0, 20.0]), ratios, mask, torch.tensor(0.5))
    assert found.tolist() == [[0.0, -0.5, 9.0, 0.0], [0.0, 18.5, 0.0, 0.0]]


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch_size": 10}, "10 completions is not a multiple of group_size 4"),
    ({"method": "dpo", "dpo": {"pairs": "given"}, "batch_size": 9}, "9 completions is odd, and two answers of a pref"),
    ({"method": "dpo", "dpo": {"variant": "kto"}, "batch_size": 4}, "a batch_size of 4 has one prompt alone"),
    ({"method": "reinforce"}, "method")])
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        RlhfConfig(**{**FIELDS, **changes})


@pytest.mark.parametrize(("changes", "message"), [
    ({"rlhf.batch_size": 16, "rlhf.group_size": 4}, r"rlhf\.batch_size 16: 2 ranks .* with 4 .* its 4 prompts"),
    ({"rlhf.method": "dpo", "rlhf.batch_size": 64, "rlhf.replay_rows": 4}, r"rlhf\.replay_rows 4: .* 4 examples"),
    ({"instruct.batch_size": 5}, r"instruct\.batch_size 5: 2 ranks .* with 1 micro-batches")])
def test_ranks_that_would_share_out_no_whole_prompts_or_rows_are_refused_before_anything_runs(changes, message):
    several = {"runtime.processes": 2, "rlhf.accumulation_steps": 4}
    load_pipeline("laptop", several)
    with pytest.raises(InputError, match=message):
        load_pipeline("laptop", {**several, **changes})


def test_given_preferences_have_a_source_that_the_reward_s_name():
    given = {"rlhf.method": "dpo", "rlhf.dpo.pairs": "given"}
    own = {"kind": "files", "paths": ["p.jsonl"], "licence": "own", "content": "preferences"}
    with pytest.raises(InputError, match=r"rlhf\.dpo\.pairs: given takes preferences of reward\.sources, and "
                                         r"vader/movie, reviews/imdb bring none; bring some"):
        load_pipeline("laptop", {**given, "collect.sources.mine": own})
    with pytest.raises(InputError, match=r"rlhf\.dpo\.pairs: .*, and no source brings any"):
        load_pipeline("laptop", {**given, "reward.sources": [], "collect.sources.mine": {**own, "enabled": False}})
    for sources in ([], ["vader", "mine/choices"]):
        load_pipeline("laptop", {**given, "reward.sources": sources, "collect.sources.mine": own})
    load_pipeline("laptop", {**given, "stages": ["instruct"]})


@pytest.mark.parametrize("method", list(CHANGES))
def test_what_is_said_of_other_methods_is_no_part_of_the_key(method):
    plain = RlhfConfig(**FIELDS, method=method).for_key()
    changed = RlhfConfig(**FIELDS, method=method, ppo={"epochs": 7}, dpo={"beta": 0.7}).for_key()
    assert (plain == changed) == (method in ("grpo", "best_of_n"))


@pytest.mark.parametrize(("changes", "prompts"), [
    ({}, 6 * 2), ({"method": "ppo", "ppo": {"epochs": 4}}, 2 * 8), ({"method": "dpo", "dpo": {"pairs": "given"}}, 0)])
def test_the_number_of_prompts_is_what_is_sampled_for(changes, prompts):
    assert RlhfConfig(**FIELDS, **changes).prompts == prompts


def test_a_given_preference_is_encoded_as_its_chats_are(tokenizer, tmp_path, recorder):
    write_tables(tmp_path, preferences=[preference("What is a list?", "A sequence.", "No idea at all.")])
    [found] = encoded_preferences(tmp_path, "train", (), Gold(fraction=1e-9), tokenizer, 128, recorder)
    for side, text in (("chosen", "A sequence."), ("rejected", "No idea at all.")):
        ids, mask = encode_chat(tokenizer, [{"role": "user", "content": "What is a list?"},
                                            {"role": "assistant", "content": text}])
        answer = getattr(found, side)
        assert found.prompt + answer.ids == ids[:-1], "all but the line end after the turn"
        assert [False] * len(found.prompt) + answer.mask == mask[:-1]
    assert not recorder.notes


def test_answers_of_several_turns_differ_from_where_the_assistant_says_something_else(tokenizer, tmp_path, recorder):
    def said(*texts: str):
        return [{"role": role, "content": text} for role, text in zip(("assistant", "user") * 2, texts, strict=False)]

    longer = said("A sequence.", "And a tuple?", "One too.")
    for rejected in (said("A sequence."), said("A sequence.", "And a set?", "Not one.")):
        made = {**preference("What is a list?", "", ""), "chosen": longer, "rejected": rejected}
        write_tables(tmp_path, preferences=[made])
        [found] = encoded_preferences(tmp_path, "train", (), Gold(fraction=1e-9), tokenizer, 128, recorder)
        for side in ("chosen", "rejected"):
            ids, mask = encode_chat(tokenizer, made["prompt"] + made[side])
            answer = getattr(found, side)
            assert found.prompt + answer.ids == ids[:-1] and [False] * len(found.prompt) + answer.mask == mask[:-1]


def test_preferences_of_the_gold_reward_are_not_given_and_long_ones_are_cut_and_told(tokenizer, tmp_path, recorder):
    rows = [preference(f"Question {number}?", "word " * 300, "No.") for number in range(40)]
    write_tables(tmp_path, preferences=rows)
    kept = encoded_preferences(tmp_path, "train", (), Gold(fraction=0.5), tokenizer, 64, recorder)
    assert 0 < len(kept) < 40
    assert all(len(each.prompt) + len(each.chosen.ids) <= 64 and each.prompt for each in kept)
    assert recorder.notes == [f"train: of {len(kept)} preferences {len(kept)} lost a part to fit 64 tokens"]
