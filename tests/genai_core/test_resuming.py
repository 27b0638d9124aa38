"""Resumed equals uninterrupted, to the bit, for the objectives that draw, sample and pass over their data twice.

Next-token prediction is in test_training.py, the families' in test_image_families.py, kills of whole flows in
end_to_end/test_kills.py.
"""

import copy
import json
from pathlib import Path

import pytest
import torch

from genai_core.config.training import InstructConfig, PretrainConfig, RewardConfig, RlhfConfig
from genai_core.context import Context
from genai_core.data.chat import encode_chat
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.data.instruction.judgements import Judged
from genai_core.data.instruction.packing import pack
from genai_core.data.tokens.token_files import read_tokens
from genai_core.inference.reward import OpenedRewardModel
from genai_core.models.reward import RewardModel
from genai_core.training.loop import train
from genai_core.training.objectives.assistant_tokens import AssistantTokens
from genai_core.training.objectives.bradley_terry import BradleyTerry
from genai_core.training.objectives.grpo import Grpo
from genai_core.training.objectives.next_token import NextToken
from tests.conftest import Interrupted, die_after

CPU = torch.device("cpu")
LOOP = {"learning_rate": 3e-3, "batch_size": 4, "optimizer": "muon"}


def next_token(model, tokens, tokenizer, prose):
    """Two and a half passes over the token file."""
    steps = int(2.5 * len(read_tokens(tokens, "train").ids)) // (4 * 128)
    config = PretrainConfig(**LOOP, layers=1, hidden_size=16, heads=1, key_value_heads=1, feed_forward_size=16,
                            context_length=128, tokens=steps * 4 * 128, evaluations=2, validation_tokens=1024)
    return model, NextToken(model, tokens, config, CPU), config


def instruct(model, tokens, tokenizer, prose):
    """Two and a half passes over rows that are full, or nearly."""
    chats = [[{"role": "user", "content": text[:40]}, {"role": "assistant", "content": text[40:90]}]
             for text in prose[:40]]
    rows = pack([encode_chat(tokenizer, chat) for chat in chats], 96, pad_id=0)
    assert (rows.ids != 0).mean() > 0.8
    config = InstructConfig(**LOOP, context_length=96, epochs=2.5)
    return model, AssistantTokens(model, rows, rows, config, CPU), config


def reward(model, tokens, tokenizer, prose):
    """Two and a half passes, with tokens dropped at random."""
    judged = [Judged(text[:80], float(number % 5), "pages", "pages") for number, text in enumerate(prose[:20])]
    config = RewardConfig(**LOOP, context_length=64, epochs=2.5, token_dropout=0.3)
    scorer = RewardModel.from_language_model(model)
    return scorer, BradleyTerry(scorer, tokenizer, judged, judged[:4], config, CPU), config


def rlhf(model, tokens, tokenizer, prose):
    """Answers that the policy samples, to prompts that come again."""
    config = RlhfConfig(learning_rate=1e-3, batch_size=8, group_size=4, steps=6, completion_tokens=8, replay_rows=2)
    scorer = RewardModel.from_language_model(model)
    torch.nn.init.normal_(scorer.score.weight)
    prompts = [Example(user_asks(f"Continue: {text[:20]}"), "", (), text[:20]) for text in prose[:5]]
    replay = pack([encode_chat(tokenizer, [{"role": "user", "content": "Hello"},
                                           {"role": "assistant", "content": "Hello."}])] * 3, 64, pad_id=0)
    opened = OpenedRewardModel(Path(), scorer.eval(), tokenizer, 64)
    reference = copy.deepcopy(model).requires_grad_(False)
    return model, Grpo(model, reference, opened, tokenizer, prompts, prompts[:2], replay, config, CPU), config


@pytest.mark.parametrize("make", [next_token, instruct, reward, rlhf])
def test_resumed_equals_uninterrupted_to_the_bit(make, tiny_model, tokens, tokenizer, prose, tmp_path, recorder,
                                                 monkeypatch):
    def run(folder, stop_after=None):
        torch.manual_seed(0)
        model, objective, config = make(copy.deepcopy(tiny_model), tokens, tokenizer, prose)
        context = Context(tmp_path / folder, recorder, device="cpu", compile="off", checkpoint_seconds=1e9)
        if stop_after is None:
            return model.state_dict(), train(model, objective, config, context), objective.steps
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            die_after(patch, stop_after)
            train(model, objective, config, Context(tmp_path / folder, recorder, device="cpu", compile="off",
                                                    checkpoint_seconds=1e-9))
        return None

    weights, whole, steps = run("whole")
    for stop_after in sorted({1, 2 * steps // 5, 2 * steps // 5 + 1, steps // 2, steps - 1}):      # an epoch is 2/5
        run(f"stopped-{stop_after}", stop_after)
        resumed_weights, resumed, _ = run(f"stopped-{stop_after}")
        assert resumed.measurements["resumed_from_step"] == stop_after
        assert all(torch.equal(weights[name], value) for name, value in resumed_weights.items())
        assert json.dumps(resumed.curves) == json.dumps(whole.curves)
        assert resumed.metrics == whole.metrics
