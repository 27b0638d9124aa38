"""Reward model and GRPO: padding changes nothing, the pair loss is the naive one, the first ratio is one."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from genai_core.config.training import RewardConfig, RlhfConfig
from genai_core.data.chat import encode_chat
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.data.instruction.judgements import Judged
from genai_core.data.instruction.packing import pack
from genai_core.data.tokens.batches import IGNORED
from genai_core.evaluation.preferences import calibration_error, pair_accuracy
from genai_core.inference.reward import OpenedRewardModel, open_reward_model, save_reward_model
from genai_core.inference.sequences import token_log_probs
from genai_core.models.masks import causal_mask, packed_mask
from genai_core.models.reward import RewardModel, encode_subjects, score_subjects
from genai_core.rewards.reward import ModelReward, Rewards
from genai_core.training.alignment.grpo import Grpo
from genai_core.training.alignment.method import weighted_divergence
from genai_core.training.alignment.rollouts import evaluate_policy, sample_rollout, uniform
from genai_core.training.objectives.bradley_terry import BradleyTerry
from genai_core.training.objectives.rating_regression import RatingRegression

CPU = torch.device("cpu")


@pytest.fixture
def reward_model(tiny_model):
    model = RewardModel.from_language_model(tiny_model)
    torch.nn.init.normal_(model.score.weight)
    return model.eval()


CHAT = [{"role": "user", "content": "What is a list?"}, {"role": "assistant", "content": "A mutable sequence."}]
TEXTS = ["A good film.", "An unbearably long, dull and pointless film that I did not like at all.", "So-so"]


def test_a_text_scores_the_same_alone_and_beside_longer_ones(reward_model, tokenizer):
    together = score_subjects(reward_model, tokenizer, TEXTS, 64)
    alone = torch.cat([score_subjects(reward_model, tokenizer, [text], 64) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)


def test_transformers_gives_our_rewards(reward_model, tokenizer, tokenizer_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_reward_model(reward_model, tokenizer_dir, 64, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids, _ = encode_subjects(tokenizer, TEXTS[:1], 64)
    with torch.no_grad():
        assert theirs(ids).logits[0, 0].item() == pytest.approx(
            score_subjects(reward_model, tokenizer, TEXTS[:1], 64).item(), abs=1e-4)
    opened = open_reward_model(tmp_path, CPU)
    assert opened.length == 64
    assert torch.equal(opened.score(TEXTS), score_subjects(reward_model, tokenizer, TEXTS, 64))


def objective_of(reward_model, tokenizer, judged, **fields):
    config = RewardConfig(learning_rate=1e-3, **{"batch_size": 4, "context_length": 64, "token_dropout": 0} | fields)
    return BradleyTerry(reward_model, tokenizer, judged, [], config, CPU)


def naive_loss(reward_model, tokenizer, pairs):
    """Of (better, worse), one after the other."""
    scores = [score_subjects(reward_model, tokenizer, list(pair), 64) for pair in pairs]
    return sum(-torch.nn.functional.logsigmoid(better - worse) for better, worse in scores).item()


def test_the_pair_loss_is_that_of_every_pair_by_itself(reward_model, tokenizer):
    texts = [*TEXTS, "Good, if long."]
    judged = [Judged(text, rating, "mine", "mine") for text, rating in zip(texts, (2.0, -1.5, 1.8, 0.0), strict=True)]
    objective = objective_of(reward_model, tokenizer, judged, min_rating_gap=0.5)
    batch = objective.batch(0)
    pairs = [(0, 1), (2, 1), (0, 3), (2, 3), (3, 1)]      # 2.0 and 1.8 are too close to be a pair
    naive = naive_loss(reward_model, tokenizer, [(texts[better], texts[worse]) for better, worse in pairs])
    assert objective.targets(batch) == len(pairs)
    assert objective.loss(batch)[0].item() == pytest.approx(naive, rel=1e-4)


def test_ratings_of_two_sources_and_answers_of_two_preferences_are_never_a_pair(reward_model, tokenizer):
    judged = [Judged(TEXTS[0], 5.0, "stars", "stars"), Judged(TEXTS[1], 1.0, "stars", "stars"),
              Judged(TEXTS[1], 0.9, "thumbs", "thumbs"), Judged(TEXTS[2], -0.9, "thumbs", "thumbs"),
              Judged(TEXTS[2], 1.0, "mine/1", "mine"), Judged(TEXTS[0], 0.0, "mine/1", "mine"),
              Judged(TEXTS[1], 1.0, "mine/2", "mine"), Judged(TEXTS[2], 0.0, "mine/2", "mine")]
    objective = objective_of(reward_model, tokenizer, judged, batch_size=8)
    batch = objective.batch(0)
    naive = naive_loss(reward_model, tokenizer, [(judged[row].subject, judged[row + 1].subject)
                                                 for row in range(0, 8, 2)])
    assert objective.targets(batch) == 4
    assert objective.loss(batch)[0].item() == pytest.approx(naive, rel=1e-4)


def test_choices_and_labels_are_pairs_whatever_gap_ratings_have_to_have(reward_model, tokenizer):
    judged = [Judged(TEXTS[0], 1.0, "mine/1", "mine", is_choice=True),
              Judged(TEXTS[1], 0.0, "mine/1", "mine", is_choice=True),
              Judged(TEXTS[1], 1.0, "films", "films", is_choice=True),
              Judged(TEXTS[2], 0.0, "films", "films", is_choice=True),
              Judged(TEXTS[0], 5.0, "stars", "stars"), Judged(TEXTS[2], 3.5, "stars", "stars")]
    objective = objective_of(reward_model, tokenizer, judged, batch_size=6, min_rating_gap=2.0)
    assert objective.targets(objective.batch(0)) == 2


@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_the_two_answers_of_a_preference_are_in_every_batch_and_micro_batch_together(reward_model, tokenizer,
                                                                                     accumulation_steps):
    judged = [Judged(TEXTS[number % 3], float(1 - side), f"mine/{number}", "mine") for number in range(8)
              for side in (0, 1)]
    objective = objective_of(reward_model, tokenizer, judged, batch_size=8, accumulation_steps=accumulation_steps)
    for step in range(6):
        batch = objective.batch(step)
        for groups in batch["groups"].split(8 // accumulation_steps):
            assert groups[0::2].tolist() == groups[1::2].tolist()
        assert objective.targets(batch) == 4, "a preference is one pair"


def test_a_micro_batch_that_would_part_a_preference_is_refused():
    with pytest.raises(ValidationError, match="micro-batch of 3 is odd, and two answers of a preference belong"):
        RewardConfig(learning_rate=1e-3, context_length=64, batch_size=6, accumulation_steps=2)


def test_a_conversation_scores_as_its_rendered_chat_up_to_the_end_of_the_last_turn(reward_model, tokenizer):
    conversation = [{"role": "system", "content": "Be brief."}, *CHAT]
    ids, mask = encode_chat(tokenizer, conversation)
    last = max(position for position, flag in enumerate(mask) if flag)      # the end of the assistant's turn
    expected = reward_model(torch.tensor([ids[:last + 1]]), torch.tensor([last])).item()
    together = score_subjects(reward_model, tokenizer, [TEXTS[1], conversation, "So-so"], 128)
    assert together[1].item() == pytest.approx(expected, abs=1e-5)
    assert together[0].item() == pytest.approx(score_subjects(reward_model, tokenizer, TEXTS[1:2], 128).item(),
                                               abs=1e-5)


def test_a_conversation_that_is_too_long_keeps_its_answer(reward_model, tokenizer):
    long = [{"role": "user", "content": "word " * 200}, CHAT[1]]
    ids, last = encode_subjects(tokenizer, [long], 32)
    whole = encode_chat(tokenizer, long)[0]
    end = len(whole) - 1 - whole[::-1].index(tokenizer.token_to_id("<|im_end|>"))
    assert ids[0].tolist() == whole[end - 31:end + 1] and last.tolist() == [31]


def test_pair_accuracy_and_calibration():
    ratings = np.array([0.0, 1.0, 2.0, 3.0])
    assert pair_accuracy(ratings, ratings, 1.0) == 1.0
    assert pair_accuracy(-ratings, ratings, 1.0) == 0.0
    assert pair_accuracy(np.zeros(4), ratings, 1.0) == 0.5
    assert np.isnan(pair_accuracy(ratings, ratings, 9.0))
    assert calibration_error(ratings * 50, ratings, 1.0) < 0.01
    assert calibration_error(-ratings * 50, ratings, 1.0) > 0.9


def opening(text: str) -> Example:
    """A prompt to go on from, which the reward model reads as one text with the answer."""
    return Example(user_asks(f"Continue this film review: {text}"), "", (), text, continues=True)


SEQUENCES = ("ids", "completion_mask", "position_ids", "mask")
OPENINGS = [opening(text) for text in ("This film", "I saw", "One of")]
QUESTION = Example(user_asks("What is a list?"), "", (), "What is a list?")


@pytest.fixture
def setting(tiny_model, reward_model, tokenizer):
    config = RlhfConfig(learning_rate=1e-3, batch_size=8, group_size=4, steps=2, completion_tokens=10,
                        replay_rows=2)
    opened = OpenedRewardModel(Path(), reward_model, tokenizer, 64)
    replay = pack([encode_chat(tokenizer, CHAT)] * 3, 64, pad_id=0)
    rewards = Rewards({"reward_model": (1.0, ModelReward(opened))})
    return config, opened, Grpo(tiny_model, tiny_model, rewards, tokenizer, OPENINGS, OPENINGS, replay, config, CPU)


def test_sampler_and_trainer_agree_on_probabilities_so_the_first_ratio_is_one(setting, tiny_model):
    config, _, objective = setting
    torch.manual_seed(0)
    batch = objective.batch(0)
    log_probs, _ = token_log_probs(tiny_model, batch, config.temperature)
    mask = batch["completion_mask"][:, 1:]
    assert (log_probs - batch["sampled_log_probs"])[mask].abs().max() < 1e-4
    as_trained = objective.log_probs(tiny_model, {name: batch[name] for name in SEQUENCES})
    assert torch.allclose(as_trained[mask], batch["reference_log_probs"][mask], atol=1e-5)


def test_advantages_are_normalised_within_each_prompt(setting):
    torch.manual_seed(0)
    advantages = setting[2].batch(0)["advantages"].view(-1, 4)
    assert advantages.mean(1).abs().max() < 1e-5
    assert (advantages.std(1) - 1).abs().max() < 0.05


def test_at_the_start_the_kl_is_zero_and_the_gradient_is_not(setting, tiny_model):
    torch.manual_seed(0)
    objective = setting[2]
    loss, sums = objective.loss(objective.batch(0))
    loss.backward()
    assert sums["kl_per_token"].item() == pytest.approx(0, abs=1e-4)
    assert max(parameter.grad.abs().max() for parameter in tiny_model.parameters()) > 0


def test_the_gradient_of_the_penalty_is_that_of_the_kl_that_is_reported(setting, tiny_model, tokenizer):
    """One token after a prompt, every token of the vocabulary once, weighted with its probability: the expectation is
    exact, and must be ∇ KL(π ‖ π_ref) and not ∇ KL(π_ref ‖ π)."""
    objective = setting[2]
    prompt = tokenizer.encode("This film", add_special_tokens=False).ids
    with torch.no_grad():
        reference = torch.log_softmax(tiny_model(torch.tensor([prompt]))[0, -1] / 1.0, dim=-1)
        for parameter in tiny_model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    count = len(reference)
    ids = torch.cat([torch.tensor(prompt).expand(count, -1), torch.arange(count)[:, None]], dim=1)
    length = ids.shape[1]
    log_policy = torch.log_softmax(tiny_model(torch.tensor([prompt]))[0, -1], dim=-1)
    weights = torch.zeros(count, length)
    weights[:, -1] = log_policy.detach().exp()
    sampled, known = torch.zeros(count, length - 1), torch.zeros(count, length - 1)
    sampled[:, -1], known[:, -1] = log_policy.detach(), reference
    loss, _ = objective.loss({
        "ids": ids, "completion_mask": weights, "position_ids": torch.arange(length).expand(count, -1),
        "mask": causal_mask(length, CPU), "sampled_log_probs": sampled, "reference_log_probs": known,
        "advantages": torch.zeros(count), "kl_weight": torch.ones(count)})
    parameters = list(tiny_model.parameters())
    ours = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])

    def cosine(kl: torch.Tensor) -> float:
        theirs = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(kl, parameters, retain_graph=True)])
        return torch.cosine_similarity(ours, theirs, dim=0).item()

    forward = (log_policy.exp() * (log_policy - reference)).sum()
    backward = (reference.exp() * (reference - log_policy)).sum()
    assert cosine(forward) == pytest.approx(1, abs=1e-4)
    assert cosine(backward) < 0.99


def test_replayed_rows_count_as_the_config_says_beside_the_mean_over_the_completions(setting, tiny_model):
    torch.manual_seed(0)
    config, _, objective = setting
    objective.reference = copy.deepcopy(tiny_model)
    for parameter in objective.reference.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    batch = objective.batch(0)
    with_replay, sums = objective.loss(batch)
    without, _ = objective.loss({name: tensor for name, tensor in batch.items() if not name.startswith("replay")})
    rows = objective.replay.take(np.array([0, 1]), CPU)
    mean = mean_divergence(objective.reference, tiny_model, rows)
    added = ((with_replay - without) / objective.targets(batch)).item()
    assert mean > 1e-3 and added == pytest.approx(config.replay_coefficient * mean, rel=1e-3)
    assert (sums["replay_divergence"] / objective.targets(batch)).item() == pytest.approx(added, rel=1e-3)


def mean_divergence(reference, policy, rows):
    """Token by token, by the definition."""
    sums = []
    with torch.no_grad():
        expected, found = (model(rows["ids"], rows["position_ids"], packed_mask(rows["segments"])).softmax(-1)
                           for model in (reference, policy))
    for row, place in (rows["targets"] != IGNORED).nonzero().tolist():
        p, q = expected[row, place], found[row, place]
        sums.append(rows["weights"][row, place] * (p * (p / q).log()).sum())
    return (sum(sums) / rows["weights"].sum()).item()


def test_a_policy_that_is_the_reference_is_not_moved_by_replayed_rows(setting, tiny_model):
    _, _, objective = setting
    rows = objective.replay.take(np.array([0, 1]), CPU)
    loss = weighted_divergence(copy.deepcopy(tiny_model), tiny_model, rows)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert all(parameter.grad.abs().max() < 1e-4 for parameter in tiny_model.parameters())


def test_a_completion_that_is_cut_off_pays_the_penalty(setting):
    config, reward_model, objective = setting
    batch = objective.batch(0)
    prompts = OPENINGS[:1] * 4 + OPENINGS[1:2] * 4
    rollout = sample_rollout(objective.policy, objective.tokenizer, prompts, config, uniform(config, 0))
    scores = reward_model.score([prompt.answered(answer)
                                 for prompt, answer in zip(prompts, rollout.answers, strict=True)])
    expected = scores - config.truncation_penalty * (~rollout.finished).float()
    assert torch.allclose(batch["rewards"], expected, atol=1e-4)
    assert torch.equal(batch["truncated"].bool(), ~rollout.finished) and batch["truncated"].any()


def test_the_held_out_reward_is_the_one_that_is_trained_and_one_prompt_has_no_deviation(setting):
    objective = setting[2]
    objective.config = objective.config.model_copy(update={"truncation_penalty": 0.0})
    without = objective.held_out_figures(objective.policy)
    objective.config = objective.config.model_copy(update={"truncation_penalty": 2.0})
    figures = objective.held_out_figures(objective.policy)
    assert figures["held_out_truncated"] > 0
    expected = without["held_out_reward"] - 2 * figures["held_out_truncated"]
    assert figures["held_out_reward"] == pytest.approx(expected, abs=1e-5)
    assert objective.evaluate(1)["held_out_truncated"] == figures["held_out_truncated"]
    objective.held_out = OPENINGS[:1]
    assert objective.held_out_figures(objective.policy)["held_out_reward_deviation"] == 0


@pytest.mark.parametrize(("kl", "factor"), [(3.0, 1), (6.0, 1), (12.0, 16), (18.0, 81), (30.0, 100), (1e6, 100)])
def test_the_weight_of_the_kl_penalty_grows_to_a_hundredfold_and_no_further(setting, kl, factor):
    config, _, objective = setting
    weight = objective.kl_weight(torch.tensor(kl)).item()
    assert weight == pytest.approx(factor * config.kl_coefficient)


def test_evaluation_leaves_the_random_state_of_training_alone(setting):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = setting[2].evaluate(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert setting[2].evaluate(1) == first, "held-out figures depend on what training has sampled"


def test_evaluation_leaves_the_random_state_of_every_gpu_alone(setting, monkeypatch):
    """Seeding seeds all devices. Two pretended GPUs, whose random states are a number each."""
    states = {0: torch.tensor([10]), 1: torch.tensor([11])}

    def seed_all(seed):
        states.update(dict.fromkeys(states, torch.tensor([seed])))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    setting[2].evaluate(1)
    assert {device: int(state) for device, state in states.items()} == {0: 10, 1: 11}


def test_a_model_compared_with_itself_has_no_kl(setting, tiny_model, tokenizer):
    config, _, objective = setting
    figures = evaluate_policy(tiny_model, tiny_model, objective.rewards, tokenizer, OPENINGS[:2], config)
    assert figures["held_out_kl"] == pytest.approx(0, abs=1e-5)
    assert 0 < figures["distinct_words"] <= 1


def test_what_goes_on_from_an_opening_is_judged_as_one_text_and_an_answer_as_a_conversation():
    assert OPENINGS[0].answered("is good.") == "This film is good."
    assert QUESTION.answered("Yes.") == [*QUESTION.asked, {"role": "assistant", "content": "Yes."}]


def test_with_a_margin_rewards_are_to_differ_by_as_much_as_ratings_do_and_centring_keeps_them_around_zero(
        reward_model, tokenizer):
    """Touvron et al. 2023, eq. 2, and Eisenstein et al. 2023, by their formulas, pair by pair."""
    judged = [Judged(text, rating, "mine", "mine") for text, rating in zip(TEXTS, (2.0, -1.5, 0.0), strict=True)]
    judged.append(Judged("Good, if long.", 1.9, "other", "other"))
    objective = objective_of(reward_model, tokenizer, judged, margin=0.3, centring=0.01)
    batch = objective.batch(0)
    scores = score_subjects(reward_model, tokenizer, TEXTS, 64)
    expected = sum(-torch.nn.functional.logsigmoid(scores[better] - scores[worse] - 0.3 * gap)
                   + 0.01 * (scores[better] + scores[worse]) ** 2
                   for better, worse, gap in ((0, 1, 3.5), (0, 2, 2.0), (2, 1, 1.5)))
    assert objective.targets(batch) == 3
    assert objective.loss(batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_regression_is_on_the_rating_in_deviations_of_its_source(reward_model, tokenizer):
    judged = [Judged(TEXTS[0], 9.0, "stars", "stars"), Judged(TEXTS[1], 5.0, "stars", "stars"),
              Judged(TEXTS[1], 1.0, "mine/1", "mine"), Judged(TEXTS[2], 0.0, "mine/1", "mine")]
    config = RewardConfig(learning_rate=1e-3, batch_size=4, context_length=64, token_dropout=0, objective="regression")
    objective = RatingRegression(reward_model, tokenizer, judged, [], config, CPU)
    batch = objective.batch(0)
    scores = score_subjects(reward_model, tokenizer, [each.subject for each in judged], 64)
    expected = ((scores - torch.tensor([1.0, -1.0, 1.0, -1.0])) ** 2).sum()
    assert objective.targets(batch) == 4
    assert objective.loss(batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_margin_and_centring_are_of_pairs_and_no_part_of_regression():
    with pytest.raises(ValidationError, match=r"margin 0\.5 is of pairs, which regression has none of"):
        RewardConfig(learning_rate=1e-3, context_length=64, batch_size=4, objective="regression", margin=0.5)
