"""A tiny training of each objective of language models, and of some families, for what holds for all of them.

Each takes a model, token files, a tokenizer and texts, and changes to its config; it gives the module that is trained,
the objective and the config.
"""

import copy
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from genai_core.config.training import InstructConfig, LoraConfig, PretrainConfig, RewardConfig, RlhfConfig
from genai_core.data.chat import encode_chat
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.data.instruction.judgements import Judged
from genai_core.data.instruction.packing import pack
from genai_core.data.instruction.preferences import Answer, Preference
from genai_core.data.tokens.batches import pad
from genai_core.data.tokens.token_files import read_tokens
from genai_core.families.bert.config import MaskedConfig
from genai_core.families.bert.masked_tokens import MaskedTokens
from genai_core.families.bert.model import Bert, BertShape
from genai_core.families.classification.reviews import Reviews
from genai_core.families.diffusion.config import DiffusionConfig
from genai_core.families.diffusion.model import Diffusion, DiffusionShape
from genai_core.families.diffusion.objective import Denoising
from genai_core.families.encoder_decoder.config import PairTrainConfig
from genai_core.families.encoder_decoder.objective import TargetTokens
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.inference.reward import OpenedRewardModel
from genai_core.models.adapters import add_adapters, without_adapters
from genai_core.models.reward import SCORE, RewardModel
from genai_core.rewards.reward import ModelReward, Rewards
from genai_core.stages.rlhf import METHODS
from genai_core.training.objectives.assistant_tokens import AssistantTokens
from genai_core.training.objectives.bradley_terry import BradleyTerry
from genai_core.training.objectives.next_token import NextToken

CPU = torch.device("cpu")
LOOP = {"learning_rate": 3e-3, "batch_size": 4, "optimizer": "muon"}


def next_token(model, tokens, tokenizer, prose, **changes):
    """Two and a half passes over the token file."""
    steps = int(2.5 * len(read_tokens(tokens, "train").ids)) // (4 * 128)
    config = PretrainConfig(**{**LOOP, **changes}, layers=1, hidden_size=16, heads=1, key_value_heads=1,
                            feed_forward_size=16, context_length=128, tokens=steps * 4 * 128, evaluations=2,
                            validation_tokens=1024)
    return model, NextToken(model, tokens, config, CPU), config


def instruct(model, tokens, tokenizer, prose, **changes):
    """Two and a half passes over rows that are full, or nearly."""
    chats = [[{"role": "user", "content": text[:40]}, {"role": "assistant", "content": text[40:90]}]
             for text in prose[:40]]
    rows = pack([encode_chat(tokenizer, chat) for chat in chats], 96, pad_id=0)
    assert (rows.ids != 0).mean() > 0.8
    config = InstructConfig(**{**LOOP, **changes}, context_length=96, epochs=2.5)
    return model, AssistantTokens(model, rows, rows, config, CPU), config


def reward(model, tokens, tokenizer, prose, **changes):
    """Two and a half passes, with tokens dropped at random."""
    judged = [Judged(text[:80], float(number % 5), "pages", "pages") for number, text in enumerate(prose[:20])]
    config = RewardConfig(**{**LOOP, **changes}, context_length=64, epochs=2.5, token_dropout=0.3)
    scorer = RewardModel.from_language_model(model)
    return scorer, BradleyTerry(scorer, tokenizer, judged, judged[:4], config, CPU), config


def rlhf(model, tokens, tokenizer, prose, **changes):
    """Answers that the policy samples, to prompts that come again; or, of `dpo.pairs` given, preferences."""
    config = RlhfConfig(**{"learning_rate": 1e-3, "batch_size": 8, "group_size": 4, "steps": 6, "completion_tokens": 8,
                           "replay_rows": 4, **changes})
    scorer = RewardModel.from_language_model(without_adapters(model))
    torch.nn.init.normal_(scorer.score.weight)
    prompts = [Example(user_asks(f"Continue: {text[:20]}"), "", (), text[:20]) for text in prose[:5]]
    replay = pack([encode_chat(tokenizer, [{"role": "user", "content": "Hello"},
                                           {"role": "assistant", "content": "Hello."}])] * 3, 64, pad_id=0)
    rewards = Rewards({"reward_model": (1.0, ModelReward(OpenedRewardModel(Path(), scorer.eval(), tokenizer, 64)))})
    reference = copy.deepcopy(model).requires_grad_(False)
    more = {"preferences": preferences(tokenizer, prose)} if config.dpo.pairs == "given" else {}
    objective = METHODS[config.method](model, reference, rewards, tokenizer, prompts, prompts[:2], replay, config, CPU,
                                       **more)
    return objective.trained, objective, config


LORA = LoraConfig(rank=4, alpha=8)
FOUR_BITS = LoraConfig(rank=4, alpha=8, bits=4)


def instruct_adapters(model, tokens, tokenizer, prose, **changes):
    """As `instruct`, of adapters alone."""
    add_adapters(model, LORA, seed=0)
    return instruct(model, tokens, tokenizer, prose, **changes)


def reward_adapters(model, tokens, tokenizer, prose, **changes):
    """As `reward`, of adapters and the head."""
    scorer, objective, config = reward(model, tokens, tokenizer, prose, **changes)
    add_adapters(scorer, LORA, seed=0, whole=(SCORE,))
    return scorer, objective, config


def rlhf_adapters(model, tokens, tokenizer, prose, **changes):
    """As `rlhf`, of adapters alone; the reference is what they are on."""
    add_adapters(model, LORA, seed=0)
    policy, objective, config = rlhf(model, tokens, tokenizer, prose, **changes)
    objective.reference = without_adapters(policy)
    return policy, objective, config


def four_bit_adapters(model, tokens, tokenizer, prose, **changes):
    """As `instruct_adapters`, on weights of four bits."""
    add_adapters(model, FOUR_BITS, seed=0)
    return instruct(model, tokens, tokenizer, prose, **changes)


def reward_four_bit_adapters(model, tokens, tokenizer, prose, **changes):
    """As `reward_adapters`, on weights of four bits."""
    scorer, objective, config = reward(model, tokens, tokenizer, prose, **changes)
    add_adapters(scorer, FOUR_BITS, seed=0, whole=(SCORE,))
    return scorer, objective, config


def rlhf_four_bit_adapters(model, tokens, tokenizer, prose, **changes):
    """As `rlhf_adapters`, on weights of four bits, which the reference has too."""
    policy, objective, config = rlhf(model, tokens, tokenizer, prose, **changes)
    add_adapters(policy, FOUR_BITS, seed=0)
    objective.reference = without_adapters(policy)
    return policy, objective, config


class OfTexts:
    """A reward that is a function of the answer alone."""

    def __init__(self, function):
        self.function = function

    def score(self, prompts, answers):
        return torch.tensor([float(self.function(answer)) for answer in answers])


def rewarded_by(function):
    return Rewards({"mine": (1.0, OfTexts(function))})


def preferences(tokenizer, prose):
    """Seven, whose prompts and answers have different lengths."""
    def answer(text):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return Answer(ids, [True] * len(ids))

    return [Preference(tokenizer.encode(f"Continue: {text[:20 + number]}", add_special_tokens=False).ids,
                       answer(text[20:40 + 3 * number]), answer(text[50:60 + 2 * number]))
            for number, text in enumerate(prose[:7])]


def ppo(*arguments, **changes):
    """Two steps on each batch of completions."""
    return rlhf(*arguments, **{"method": "ppo", "ppo": {"epochs": 2}, **changes})


def dpo(*arguments, **changes):
    """The best against the worst of four completions."""
    return rlhf(*arguments, **{"method": "dpo", **changes})


def kto(*arguments, **changes):
    """On preferences that are given."""
    return rlhf(*arguments, **{"method": "dpo", "dpo": {"variant": "kto", "pairs": "given"}, **changes})


def best_of_n(*arguments, **changes):
    """The best of four completions."""
    return rlhf(*arguments, **{"method": "best_of_n", **changes})


def masked_tokens(model, tokens, tokenizer, prose, **changes):
    """A bidirectional encoder, whose batches hide tokens at random."""
    ids, attention_mask = pad([tokenizer.encode(text[:120]).ids for text in prose[:40]], 0, "right")
    reviews = Reviews(ids, attention_mask, torch.zeros(len(ids), dtype=torch.int64), prose[:40])
    config = MaskedConfig(**{**LOOP, **changes}, epochs=2)
    encoder = Bert(BertShape(tokenizer.get_vocab_size(), 32, 2, 2, 64, ids.shape[1]))
    return encoder, MaskedTokens(encoder, reviews, reviews, config, 0, CPU), config


def encoder_decoder(model, tokens, tokenizer, prose, **changes):
    """A recurrent encoder and decoder with attention, on batches that are as long as their longest pair."""
    rows = {"task": ["continue"] * 40, "source": [text[:40] for text in prose[:40]],
            "target": [text[40:80] for text in prose[:40]]}
    config = PairTrainConfig(**{**LOOP, **changes}, pairs=80)
    pair = RecurrentSeq2Seq(Seq2SeqShape("gru", "luong", tokenizer.get_vocab_size(), 16, 32, 30, 30))
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "validation"):
            pq.write_table(pa.table(rows), Path(folder) / f"{split}.parquet")
        return pair, TargetTokens(pair, Path(folder), PairCodec(tokenizer, 30, 30), config, CPU), config


def diffusion(model, tokens, tokenizer, prose, **changes):
    """A network that learns to take noise away, with a moving average of its weights."""
    pixels, labels = load_digits(return_X_y=True)
    images = F.interpolate(torch.from_numpy(pixels[:40]).float().view(-1, 1, 8, 8) / 16, 28).mul(255).to(torch.uint8)
    config = DiffusionConfig(**{**LOOP, **changes}, channels=8, noise_steps=20, sampling_steps=4, steps=20)
    made = Diffusion(DiffusionShape(config.channels, config.noise_steps, config.sampling_steps, config.guidance))
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "validation"):
            save_file({"images": images.contiguous(), "labels": torch.from_numpy(labels[:40])},
                      Path(folder) / f"{split}.safetensors")
        return made, Denoising(made, Path(folder), config, CPU), config


BY_NAME = {make.__name__: make for make in (next_token, instruct, instruct_adapters, four_bit_adapters, reward, rlhf,
                                            rlhf_adapters, ppo, dpo, kto, best_of_n, masked_tokens, encoder_decoder,
                                            diffusion)}
