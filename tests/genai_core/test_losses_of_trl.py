"""Our losses of alignment are those of TRL on the same tokens, which it pads on the other side and computes with
`transformers`; that of PPO, which TRL no longer has, is written out."""

import copy

import pytest
import torch

from genai_core.export.model_directory import save_model
from genai_core.inference.sequences import token_log_probs
from tests.genai_core.trainings import rlhf

trl = pytest.importorskip("trl")
datasets, transformers = pytest.importorskip("datasets"), pytest.importorskip("transformers")
Dataset = datasets.Dataset

QUIET = {"use_cpu": True, "bf16": False, "report_to": [], "disable_tqdm": True}


def moved(model, seed=1):
    """A policy that is no longer its reference."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def theirs(tiny_model, tokenizer_dir, tmp_path):
    """Tokenizer, policy and reference of `transformers` with the weights of ours."""
    opened = []
    for name, model in (("policy", moved(tiny_model)), ("reference", tiny_model)):
        (tmp_path / name).mkdir()
        save_model(model, tokenizer_dir, tmp_path / name)
        opened.append(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).eval())
    return transformers.AutoTokenizer.from_pretrained(tmp_path / "policy"), *opened


def ours(tiny_model, tokenizer, prose, **changes):
    """The objective, with a policy that is no longer its reference."""
    torch.manual_seed(0)
    _, objective, _ = rlhf(tiny_model, None, tokenizer, prose, replay_rows=0, **changes)
    objective.policy.load_state_dict(moved(tiny_model).state_dict())
    return objective


@pytest.mark.parametrize("variant", ["sigmoid", "ipo"])
def test_dpo_and_ipo_have_the_loss_of_trl(variant, tiny_model, tokenizer, prose, theirs, tmp_path):
    objective = ours(tiny_model, tokenizer, prose, method="dpo",
                     dpo={"variant": variant, "pairs": "given", "beta": 0.3})
    batch = objective.batch(0)
    loss = objective.loss(batch)[0] / objective.targets(batch)

    names, policy, reference = theirs
    trainer = trl.DPOTrainer(
        policy, ref_model=reference, processing_class=names,
        args=trl.DPOConfig(str(tmp_path / "out"), beta=0.3, loss_type=variant, **QUIET),
        train_dataset=Dataset.from_list([{"prompt": "Hello", "chosen": " good", "rejected": " bad"}] * 4))
    examples = [{"prompt_ids": pair.prompt, "chosen_ids": pair.chosen.ids, "rejected_ids": pair.rejected.ids}
                for pair in objective._given(0)[0]]
    inputs = trl.trainer.dpo_trainer.DataCollatorForPreference(pad_token_id=0)(examples)
    expected = trainer._compute_loss(trainer.model.eval(), inputs, return_outputs=False)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    assert abs(expected.item() - (0.6931 if variant == "sigmoid" else 1 / 0.36)) > 1e-3, "the policy is the reference"


def test_kto_has_the_loss_of_trl(tiny_model, tokenizer, prose, theirs, tmp_path):
    objective = ours(tiny_model, tokenizer, prose, method="dpo", dpo={"variant": "kto", "pairs": "given", "beta": 0.3})
    batch = objective.batch(0)
    loss = objective.loss(batch)[0] / objective.targets(batch)

    names, policy, reference = theirs
    trainer = trl.KTOTrainer(
        policy, ref_model=reference, processing_class=names,
        args=trl.KTOConfig(str(tmp_path / "out"), beta=0.3, per_device_train_batch_size=2, **QUIET),
        train_dataset=Dataset.from_list([{"prompt": "Hello", "completion": " good", "label": flag}
                                         for flag in (True, False)]))
    pairs = objective._given(0)[0]
    examples = [{"prompt_ids": pair.prompt, "completion_ids": getattr(pair, side).ids,
                 "KL_completion_ids": getattr(before, side).ids, "label": side == "chosen"}
                for pair, before in zip(pairs, [pairs[-1], *pairs[:-1]], strict=True)
                for side in ("chosen", "rejected")]
    inputs = trl.trainer.kto_trainer.DataCollatorForUnpairedPreference(pad_token_id=0)(examples)
    expected = trainer._compute_loss(trainer.model.eval(), inputs, return_outputs=False)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    assert batch["kl"][0] == pytest.approx(trainer._metrics["eval"]["kl"][0], abs=1e-3)


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_grpo_has_the_loss_of_trl(beta, tiny_model, tokenizer, prose, theirs, tmp_path):
    """But for the estimator of the KL, of which ours has the gradient that is meant: theirs is k3, ours k2."""
    objective = ours(tiny_model, tokenizer, prose, kl_coefficient=beta, temperature=0.8, kl_target=1e9)
    batch = objective.batch(0)
    generator = torch.Generator().manual_seed(2)      # as if the policy had made steps since: some ratios are clipped
    noise = 0.2 * torch.randn(batch["sampled_log_probs"].shape, generator=generator)
    batch["sampled_log_probs"] = batch["sampled_log_probs"] + noise * batch["completion_mask"][:, 1:]
    loss = objective.loss(batch)[0] / objective.targets(batch)

    names, policy, _ = theirs
    trainer = trl.GRPOTrainer(
        policy, reward_funcs=lambda completions, **_: [0.0] * len(completions), processing_class=names,
        args=trl.GRPOConfig(str(tmp_path / "out"), beta=beta, num_generations=4, per_device_train_batch_size=4,
                            max_completion_length=8, temperature=0.8, epsilon=0.2, loss_type="dapo",
                            use_bias_correction_kl=False, **QUIET),
        train_dataset=Dataset.from_list([{"prompt": "Hello"}] * 4))
    known = reference_log_probs(objective, batch)
    new = batch["completion_mask"].any(0).sum()
    first = batch["ids"].shape[1] - new
    real = batch["mask"][:, 0, -1]      # of the last query, which sees all but padding
    inputs = {"prompt_ids": batch["ids"][:, :first], "prompt_mask": real[:, :first].long(),
              "completion_ids": batch["ids"][:, first:], "completion_mask": batch["completion_mask"][:, first:].long(),
              "advantages": batch["advantages"], "old_per_token_logps": batch["sampled_log_probs"][:, first - 1:],
              "ref_per_token_logps": known[:, first - 1:],
              "num_items_in_batch": batch["completion_mask"].sum()}
    expected = trainer._compute_loss(trainer.model.eval(), inputs)
    log_ratio = token_log_probs(objective.policy, batch, 0.8)[0] - known
    k2, k3 = log_ratio ** 2 / 2, torch.exp(-log_ratio) + log_ratio - 1
    estimators = ((k2 - k3) * batch["completion_mask"][:, 1:]).sum() / batch["completion_mask"].sum()
    assert loss.item() == pytest.approx((expected + beta * estimators).item(), abs=1e-4)
    ratios = (token_log_probs(objective.policy, batch, 0.8)[0] - batch["sampled_log_probs"]).exp()
    assert ((ratios - 1).abs() > 0.2).any(), "nothing is clipped"


def test_ppo_has_the_loss_that_its_papers_write(tiny_model, tokenizer, prose):
    """Token by token, as Ouyang et al. 2022, Schulman et al. 2016 and TRL's PPOTrainer of before have it."""
    objective = ours(tiny_model, tokenizer, prose, method="ppo", kl_coefficient=0.1, kl_target=1e9,
                     ppo={"epochs": 2, "gae_lambda": 0.9, "discount": 0.99, "value_coefficient": 0.3,
                          "value_clip": 0.05})
    torch.nn.init.normal_(objective.with_value.value.weight, std=0.3)
    batch = objective.batch(0)
    with torch.no_grad():      # as after the first of the two steps
        objective.policy.load_state_dict(moved(objective.policy, seed=3).state_dict())
    loss = (objective.loss(batch)[0] / objective.targets(batch)).item()

    now, _, values = objective.with_value(batch, 1.0)
    tokens, advantages, by_row = 0, [], []
    for row in range(len(batch["ids"])):
        places = batch["completion_mask"][row, 1:].nonzero()[:, 0].tolist()
        rewards = [-0.1 * (batch["sampled_log_probs"][row, t] - reference).item()
                   for t, reference in zip(places, reference_log_probs(objective, batch)[row, places], strict=True)]
        rewards[-1] += batch["rewards"][row].item()
        old = [batch["values"][row, t].item() for t in places]
        own, following = [], 0.0
        for t in reversed(range(len(places))):
            delta = rewards[t] + 0.99 * (old[t + 1] if t + 1 < len(places) else 0.0) - old[t]
            following = delta + 0.99 * 0.9 * following
            own.insert(0, following)
        tokens += len(places)
        advantages += own
        by_row.append((row, places, own, old))
    mean, deviation = torch.tensor(advantages).mean().item(), torch.tensor(advantages).std().item()
    policy_loss, value_loss, clipped_values = 0.0, 0.0, 0
    for row, places, own, old in by_row:
        for t, advantage, value in zip(places, own, old, strict=True):
            ratio = (now[row, t] - batch["sampled_log_probs"][row, t]).exp().item()
            white = (advantage - mean) / deviation
            policy_loss += max(-white * ratio, -white * min(max(ratio, 0.8), 1.2))
            target, new = advantage + value, values[row, t].item()
            clipped = value + min(max(new - value, -0.05), 0.05)
            clipped_values += clipped != new
            value_loss += 0.5 * max((new - target) ** 2, (clipped - target) ** 2)
    assert loss == pytest.approx((policy_loss + 0.3 * value_loss) / tokens, abs=1e-4)
    assert clipped_values, "no value is clipped"


def reference_log_probs(objective, batch):
    return objective.log_probs(objective.reference, batch)
