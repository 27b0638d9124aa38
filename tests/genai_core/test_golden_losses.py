"""The first twenty losses of the language models, by architecture, optimizer and objective, in float32."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from genai_core.config.training import InstructConfig, PretrainConfig, RewardConfig
from genai_core.context import Context
from genai_core.data.chat import encode_chat
from genai_core.data.instruction.judgements import Judged
from genai_core.data.instruction.packing import pack
from genai_core.families.encoder_decoder.config import PairTrainConfig
from genai_core.families.encoder_decoder.objective import TargetTokens
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.families.encoder_decoder.transformer import T5, T5Shape
from genai_core.families.recurrent import objective as recurrent
from genai_core.families.recurrent.config import RecurrentConfig
from genai_core.models.reward import RewardModel
from genai_core.stages import pretrain
from genai_core.training.curves import read_curves
from genai_core.training.loop import train
from genai_core.training.objectives.assistant_tokens import AssistantTokens
from genai_core.training.objectives.bradley_terry import BradleyTerry
from tests.genai_core import golden
from tests.genai_core.golden import STEPS
from tests.genai_core.trainings import masked_tokens, rlhf

CPU = torch.device("cpu")
LOOP = {"learning_rate": 3e-3, "batch_size": 4}
WINDOWS = {"context_length": 32, "tokens": 32 * 4 * STEPS, "evaluations": 1, "validation_tokens": 1024, **LOOP}
TRANSFORMER = {"layers": 2, "hidden_size": 64, "heads": 4, "key_value_heads": 2, "head_size": 16,
               "feed_forward_size": 96}


@pytest.fixture
def context(tmp_path, recorder):
    return Context(tmp_path / "checkpoints", recorder, device="cpu", compile="off")


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_golden_pretrain(tokens, tmp_path, context, optimizer):
    rate = {"learning_rate": 0.3} if optimizer == "sgd" else {}
    config = PretrainConfig(**{**TRANSFORMER, **WINDOWS, "optimizer": optimizer, **rate})
    pretrain.run(config, tokens=tokens, out_dir=tmp_path, context=context)
    golden.check(f"pretrain {optimizer}", read_curves(tmp_path))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_golden_recurrent(tokens, tmp_path, context, cell):
    config = RecurrentConfig(cell=cell, layers=2, hidden_size=48, embedding_size=16, **WINDOWS)
    recurrent.run(config, tokens=tokens, out_dir=tmp_path, context=context)
    golden.check(f"recurrent {cell}", read_curves(tmp_path))


def test_golden_instruct(tiny_model, tokenizer, prose, context):
    chats = [[{"role": "user", "content": text[:60]}, {"role": "assistant", "content": text[60:160]}]
             for text in prose[:40]]
    rows = pack([encode_chat(tokenizer, chat) for chat in chats], 96, pad_id=0)
    config = InstructConfig(**LOOP, context_length=96, epochs=STEPS * 4 / len(rows.ids))
    objective = AssistantTokens(tiny_model, rows, rows, config, CPU)
    golden.check("instruct", train(tiny_model, objective, config, context).curves)


def test_golden_reward(tiny_model, tokenizer, prose, context):
    judged = [Judged(text[:80], float(number % 5), "pages", "pages") for number, text in enumerate(prose[:40])]
    config = RewardConfig(**LOOP, context_length=64, epochs=STEPS * 4 / len(judged))
    torch.manual_seed(0)
    model = RewardModel.from_language_model(tiny_model)
    objective = BradleyTerry(model, tokenizer, judged, [], config, CPU)
    golden.check("reward", train(model, objective, config, context).curves)


def test_golden_rlhf(tiny_model, tokens, tokenizer, prose, context):
    torch.manual_seed(0)
    model, objective, config = rlhf(tiny_model, tokens, tokenizer, prose, steps=STEPS)
    golden.check("rlhf", train(model, objective, config, context).curves)


def test_golden_masked_tokens(tiny_model, tokens, tokenizer, prose, context):
    torch.manual_seed(0)
    model, objective, config = masked_tokens(tiny_model, tokens, tokenizer, prose, optimizer="adamw")
    golden.check("masked tokens", train(model, objective, config, context).curves)


@pytest.mark.parametrize("kind", ["none", "bahdanau", "luong", "transformer"])
def test_golden_encoder_decoder(tokenizer, prose, tmp_path, context, kind):
    for split in ("train", "validation"):
        rows = {"task": ["continue"] * 40, "source": [text[:40] for text in prose[:40]],
                "target": [text[40:80] for text in prose[:40]]}
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    config, vocabulary = PairTrainConfig(**LOOP, pairs=STEPS * 4), tokenizer.get_vocab_size()
    torch.manual_seed(0)
    model = T5(T5Shape(vocabulary, 32, 2, 1, 1, 64, 30, 30)) if kind == "transformer" else \
        RecurrentSeq2Seq(Seq2SeqShape("gru", kind, vocabulary, 16, 32, 30, 30))
    objective = TargetTokens(model, tmp_path, PairCodec(tokenizer, 30, 30), config, CPU)
    golden.check(f"encoder-decoder {kind}", train(model, objective, config, context).curves)
