"""Reward model and GRPO: padding changes nothing, the pair loss is the naive one, the first ratio is one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genai_core.config.training import RewardConfig, RlhfConfig
from genai_core.data.chat import encode_chat
from genai_core.data.packing import pack
from genai_core.evaluation.preferences import calibration_error, pair_accuracy
from genai_core.inference.reward import OpenedRewardModel, open_reward_model, save_reward_model
from genai_core.models.masks import causal_mask
from genai_core.models.reward import RewardModel, encode_texts, score_texts
from genai_core.training.objectives.assistant_tokens import weighted_loss
from genai_core.training.objectives.bradley_terry import BradleyTerry
from genai_core.training.objectives.grpo import Grpo, evaluate_policy, sample_rollout, token_log_probs

CPU = torch.device("cpu")


@pytest.fixture
def reward_model(tiny_model):
    model = RewardModel.from_language_model(tiny_model)
    torch.nn.init.normal_(model.score.weight)
    return model.eval()


TEXTS = ["A good film.", "An unbearably long, dull and pointless film that I did not like at all.", "So-so"]


def test_a_text_scores_the_same_alone_and_beside_longer_ones(reward_model, tokenizer):
    together = score_texts(reward_model, tokenizer, TEXTS, 64)
    alone = torch.cat([score_texts(reward_model, tokenizer, [text], 64) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)


def test_transformers_gives_our_rewards(reward_model, tokenizer, tokenizer_dir, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_reward_model(reward_model, tokenizer_dir, 64, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids, _ = encode_texts(tokenizer, TEXTS[:1], 64)
    with torch.no_grad():
        assert theirs(ids).logits[0, 0].item() == pytest.approx(
            score_texts(reward_model, tokenizer, TEXTS[:1], 64).item(), abs=1e-4)
    opened = open_reward_model(tmp_path, CPU)
    assert opened.length == 64
    assert torch.equal(opened.score(TEXTS), score_texts(reward_model, tokenizer, TEXTS, 64))


def test_the_pair_loss_is_that_of_every_pair_by_itself(reward_model, tokenizer):
    rows = [{"text": text, "rating": rating} for text, rating in zip(TEXTS, (2.0, -1.5, 1.8), strict=True)]
    config = RewardConfig(learning_rate=1e-3, batch_size=3, min_rating_gap=0.5, context_length=64,
                          token_dropout=0)
    objective = BradleyTerry(reward_model, tokenizer, rows, [], config, CPU)
    batch = objective.batch(0)
    scores = score_texts(reward_model, tokenizer, TEXTS, 64)
    pairs = [(0, 1), (2, 1)]      # 2.0 and 1.8 are too close to be a pair
    naive = sum(-torch.nn.functional.logsigmoid(scores[better] - scores[worse]) for better, worse in pairs)
    assert objective.targets(batch) == len(pairs)
    assert objective.loss(batch)[0].item() == pytest.approx(naive.item(), rel=1e-4)


def test_pair_accuracy_and_calibration():
    ratings = np.array([0.0, 1.0, 2.0, 3.0])
    assert pair_accuracy(ratings, ratings, 1.0) == 1.0
    assert pair_accuracy(-ratings, ratings, 1.0) == 0.0
    assert pair_accuracy(np.zeros(4), ratings, 1.0) == 0.5
    assert np.isnan(pair_accuracy(ratings, ratings, 9.0))
    assert calibration_error(ratings * 50, ratings, 1.0) < 0.01
    assert calibration_error(-ratings * 50, ratings, 1.0) > 0.9


CHAT = [{"role": "user", "content": "What is a list?"}, {"role": "assistant", "content": "A mutable sequence."}]


@pytest.fixture
def setting(tiny_model, reward_model, tokenizer):
    config = RlhfConfig(learning_rate=1e-3, batch_size=8, group_size=4, steps=2, completion_tokens=10, prompt_words=2,
                        replay_rows=2)
    openings = ["This film", "I saw", "One of"]
    opened = OpenedRewardModel(Path(), reward_model, tokenizer, 64)
    replay = pack([encode_chat(tokenizer, CHAT)] * 3, 64, pad_id=0)
    return config, opened, Grpo(tiny_model, tiny_model, opened, tokenizer, openings, openings, replay, config, CPU)


def test_sampler_and_trainer_agree_on_probabilities_so_the_first_ratio_is_one(setting, tiny_model):
    config, _, objective = setting
    torch.manual_seed(0)
    batch = objective.batch(0)
    log_probs, _ = token_log_probs(tiny_model, batch["ids"], batch["position_ids"], batch["mask"], config.temperature)
    mask = batch["completion_mask"][:, 1:]
    assert (log_probs - batch["sampled_log_probs"])[mask].abs().max() < 1e-4
    assert torch.allclose(log_probs[mask], batch["reference_log_probs"][mask], atol=1e-5)


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
    batch = objective.batch(0)
    with_replay, sums = objective.loss(batch)
    without, _ = objective.loss({name: tensor for name, tensor in batch.items() if not name.startswith("replay")})
    rows = objective.replay.take(np.array([0, 1]), CPU)
    mean = (weighted_loss(tiny_model, rows) / rows["weights"].sum()).item()
    added = (with_replay - without).item() / objective.targets(batch)
    assert added == pytest.approx(config.replay_coefficient * mean, rel=1e-3)
    assert sums["replay_loss"].item() / objective.targets(batch) == pytest.approx(added, rel=1e-3)


def test_a_completion_that_is_cut_off_pays_the_penalty(setting):
    config, reward_model, objective = setting
    torch.manual_seed(0)
    batch = objective.batch(0)
    torch.manual_seed(0)
    rollout = sample_rollout(objective.policy, objective.tokenizer, ["This film"] * 4 + ["I saw"] * 4, config)
    expected = reward_model.score(rollout.texts) - config.truncation_penalty * (~rollout.finished).float()
    assert torch.allclose(batch["rewards"], expected, atol=1e-4)
    assert torch.equal(batch["truncated"].bool(), ~rollout.finished) and batch["truncated"].any()


@pytest.mark.parametrize(("kl", "factor"), [(3.0, 1), (6.0, 1), (12.0, 16), (18.0, 81), (30.0, 100), (1e6, 100)])
def test_the_weight_of_the_kl_penalty_grows_to_a_hundredfold_and_no_further(setting, kl, factor):
    config, _, objective = setting
    weight = objective._kl_weight(torch.tensor(kl)).item()
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
    config, reward_model, _ = setting
    figures = evaluate_policy(tiny_model, tiny_model, reward_model, tokenizer, ["This film", "I"], config)
    assert figures["held_out_kl"] == pytest.approx(0, abs=1e-5)
    assert 0 < figures["distinct_words"] <= 1


def test_samples_begin_with_their_opening(setting, tiny_model, tokenizer):
    texts = sample_rollout(tiny_model, tokenizer, ["This film", "I saw"], setting[0]).texts
    assert [text.split()[0] for text in texts] == ["This", "I"]
