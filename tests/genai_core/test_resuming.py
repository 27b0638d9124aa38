"""Resumed equals uninterrupted, to the bit, for the objectives that draw, sample and pass over their data twice.

Next-token prediction is in test_training.py, the families' in test_image_families.py, kills of whole flows in
end_to_end/test_kills.py.
"""

import copy
import json

import pytest
import torch

from genai_core.context import Context
from genai_core.training.loop import train
from tests.conftest import Interrupted, die_after
from tests.genai_core.trainings import (
    best_of_n,
    dpo,
    four_bit_adapters,
    instruct,
    instruct_adapters,
    kto,
    next_token,
    ppo,
    reward,
    reward_adapters,
    reward_four_bit_adapters,
    rlhf,
    rlhf_adapters,
    rlhf_four_bit_adapters,
)


@pytest.mark.parametrize("make", [next_token, instruct, instruct_adapters, four_bit_adapters, reward,
                                  reward_adapters, reward_four_bit_adapters, rlhf, rlhf_adapters,
                                  rlhf_four_bit_adapters, ppo, dpo, kto, best_of_n])
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
    made = make(copy.deepcopy(tiny_model), tokens, tokenizer, prose)[1]
    for stop_after in sorted({1, 2 * steps // 5, 2 * steps // 5 + 1, steps // 2, steps - 1}):      # an epoch is 2/5
        if stop_after % made.steps_of_a_batch:      # no checkpoint comes there
            continue
        run(f"stopped-{stop_after}", stop_after)
        resumed_weights, resumed, _ = run(f"stopped-{stop_after}")
        assert resumed.measurements["resumed_from_step"] == stop_after
        assert all(torch.equal(weights[name], value) for name, value in resumed_weights.items())
        assert json.dumps(resumed.curves) == json.dumps(whole.curves)
        assert resumed.metrics == whole.metrics
