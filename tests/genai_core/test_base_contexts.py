"""What a base cannot read is said before anything is trained, by the plan and by each stage."""

import pytest

from genai_core.bases.weights import shape_of
from genai_core.config.base_model import BaseModelConfig
from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from genai_core.errors import InputError
from genai_core.stages import adopt, instruct, reward, rlhf
from genai_core.training.estimate import estimate
from tests.genai_core.bases import published

LINES = {"instruct": r"^instruct\.context_length: 400 is longer than the context of the base, 160; set it to 160",
         "reward": r"^reward\.context_length: 400 is longer than the context of the base, 160",
         "rlhf": r"^rlhf\.completion_tokens: 150 leaves no room for a prompt in the context of the base, 160"}


@pytest.fixture
def base(tmp_path, prose):
    return published(tmp_path / "base", "gpt2", prose[:10], n_positions=160)


def config(base):
    return load_pipeline("smoke", {"base.source": str(base), "instruct.context_length": 400,
                                   "reward.context_length": 400, "rlhf.completion_tokens": 150})


@pytest.mark.parametrize("stage", LINES)
def test_the_plan_says_what_is_longer_than_the_context_of_a_base(stage, base):
    with pytest.raises(InputError, match=LINES[stage]):
        estimate(stage, config(base), base=shape_of(base))


def test_each_stage_says_so_before_it_reads_any_data(base, tmp_path):
    taken, nothing = tmp_path / "taken", tmp_path / "nothing"
    taken.mkdir()
    adopt.run(BaseModelConfig(source=str(base)), out_dir=taken, context=Context(tmp_path))
    given, context = config(base), Context(tmp_path, device="cpu")
    parts = {"cleaned": nothing, "out_dir": tmp_path / "out", "context": context}
    with pytest.raises(InputError, match=LINES["instruct"]):
        instruct.run(given.instruct, base=taken, tokens=nothing, mixture=given.mixture, **parts)
    with pytest.raises(InputError, match=LINES["rlhf"]):
        rlhf.run(given.rlhf, instruct=taken, tokens=nothing, questions=given.questions, mixture=given.mixture,
                 fine_tuning=given.instruct, gold=given.evaluate.gold, judged=(), **parts)
    with pytest.raises(InputError, match=LINES["reward"]):
        reward.run(given.reward, instruct=taken, gold=given.evaluate.gold, **parts)
