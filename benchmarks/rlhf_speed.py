"""How fast a policy is aligned on this machine: our GRPO, and the GRPOTrainer of TRL.

    python -m benchmarks.rlhf_speed                     some minutes; into docs/benchmarks.md
    python -m benchmarks.rlhf_speed --steps 4 --rounds 1

A step samples 64 completions of 32 tokens, 8 to each prompt, scores them with a reward model, compares them with the
reference and makes one update of AdamW. Both sides have the same weights, prompts, lengths, reward model, penalty and
precision, take turns in one process, and have as many threads as there are cores; TRL has the faster of the attentions
`sdpa` and `eager`. A speed is the completion tokens of a step by the median step, without the first two.
"""

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch

from benchmarks.decode_speed import random_model
from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.train_speed import SIZES
from benchmarks.training import Clock
from genai_core.config.training import RlhfConfig
from genai_core.context import Context
from genai_core.data.instruction.examples import Example, user_asks
from genai_core.data.instruction.packing import PackedRows
from genai_core.data.tokens.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_precision, prepare
from genai_core.inference.reward import open_reward_model, save_reward_model
from genai_core.models.reward import RewardModel
from genai_core.rewards.reward import open_rewards
from genai_core.training.alignment.grpo import Grpo
from genai_core.training.loop import train

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
BATCH, GROUP, TOKENS, VOCABULARY, RATE, BETA = 64, 8, 32, 4096, 1e-5, 0.1
PEERS = ("sdpa", "eager")
NOT_COUNTED = 2


def prepared(size: str, folder: Path) -> list[str]:
    """A random policy and reward model in `folder`, as directories that both sides open; the prompts."""
    prose = [topics[name] for name in sorted(topics)]
    for name in ("tokenizer", "policy", "reward"):
        (folder / name).mkdir()
    save_tokenizer(train_tokenizer(prose, VOCABULARY), folder / "tokenizer")
    model = random_model(size)
    save_model(model, folder / "tokenizer", folder / "policy")
    scorer = RewardModel.from_language_model(model)
    torch.nn.init.normal_(scorer.score.weight, std=0.1)
    save_reward_model(scorer, folder / "tokenizer", 128, folder / "reward")
    return [f"Continue: {' '.join(page.split()[:8])}" for page in prose]


def ours(folder: Path, prompts: list[str], steps: int) -> float:
    config = RlhfConfig(learning_rate=RATE, batch_size=BATCH, group_size=GROUP, steps=steps, completion_tokens=TOKENS,
                        kl_coefficient=BETA, replay_rows=0, truncation_penalty=0.0)
    policy, reference = load_model(folder / "policy", CPU), load_model(folder / "policy", CPU).requires_grad_(False)
    examples = [Example(user_asks(prompt), "", (), prompt) for prompt in prompts]
    nothing = np.zeros((0, 8), np.int32)
    rewards = open_rewards(config.rewards, open_reward_model(folder / "reward", CPU))
    objective = Grpo(policy, reference, rewards, load_tokenizer(folder / "policy"),
                     examples, examples[:8], PackedRows(nothing, nothing, nothing, nothing, nothing), config, CPU)
    objective.evaluation_steps, objective.monitored = frozenset(), False
    clock = Clock()
    with tempfile.TemporaryDirectory() as checkpoints:
        trained = train(policy, objective, config, Context(Path(checkpoints), clock, device="cpu",
                                                           checkpoint_seconds=1e9))
    return speed(clock.ends, [length for _, length in trained.curves["length"]])


def peer(folder: Path, prompts: list[str], steps: int, attention: str) -> float:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    prepare(CPU, "off")
    ends: list[float] = []
    lengths: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "completions/mean_length" in logs:
                lengths.append(logs["completions/mean_length"])

    reward = AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32)
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32, attn_implementation=attention),
            reward_funcs=reward, processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
            reward_processing_classes=AutoTokenizer.from_pretrained(folder / "reward"), callbacks=[Watch()],
            train_dataset=Dataset.from_list([{"prompt": user_asks(prompt)} for prompt in prompts]),
            args=GRPOConfig(
                out, use_cpu=True, bf16=choose_precision(CPU) is torch.bfloat16, report_to=[], logging_steps=1,
                disable_tqdm=True, save_strategy="no", max_steps=steps, learning_rate=RATE, beta=BETA,
                per_device_train_batch_size=BATCH, num_generations=GROUP, max_completion_length=TOKENS, temperature=1.0,
                activation_checkpointing=False, optim="adamw_torch_fused"))
        trainer.train()
    return speed(ends, lengths)


def speed(ends: list[float], lengths: list[float]) -> float:
    """Completion tokens a second: a step's, by the median step."""
    seconds = [after - before for before, after in pairwise(ends[NOT_COUNTED - 1:])]
    return BATCH * statistics.mean(lengths[NOT_COUNTED:]) / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="2M")
    parser.add_argument("--steps", type=int, default=20, help="of each run, two of which are not counted")
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    if options.steps <= NOT_COUNTED + 1:
        parser.error(f"--steps: of {options.steps} steps {NOT_COUNTED} are not counted, and two are needed to time one")
    above, best = headline(), dict.fromkeys(("ours", *PEERS), 0.0)
    with tempfile.TemporaryDirectory() as name:
        prompts = prepared(options.size, Path(name))
        for _ in range(options.rounds):
            found = {"ours": ours(Path(name), prompts, options.steps)}
            found |= {attention: peer(Path(name), prompts, options.steps, attention) for attention in PEERS}
            print({name: round(each) for name, each in found.items()}, flush=True)
            best = {name: max(best[name], each) for name, each in found.items()}
    faster = max(PEERS, key=best.__getitem__)
    ratio = best["ours"] / best[faster]
    lines = [f"{above}; {BATCH} × {TOKENS} tokens a step", "",
             "| parameters | ours, completion tokens/s | TRL | ratio |", "|---|---:|---:|---:|",
             f"| {options.size} | {best['ours']:,.0f} | {best[faster]:,.0f} ({faster}) | {ratio:.2f} |"]
    print("\n".join(lines))
    worse = keep_and_compare(options.output.with_suffix(".json"), "rlhf", {f"{options.size}, ours to TRL": ratio})
    put_between_marks(options.output, "rlhf", "Alignment", "\n".join(lines) + "\n" + worse)


if __name__ == "__main__":
    main()
