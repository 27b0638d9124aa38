"""How fast a language model is fine-tuned on chats on this machine, beside TRL's SFTTrainer in its fastest setting.

    python -m benchmarks.sft_speed                              2.0M parameters of random weights, all of them trained
    python -m benchmarks.sft_speed --model DIR --adapters 16    a model directory, adapters of rank 16 on linear layers

Both sides train the same parameters on the same chats, those of the preset laptop as the last finished run of this
workspace cleaned them, at most LENGTH tokens each, on the assistant's tokens alone, with fused AdamW, in bfloat16 where
the hardware multiplies it, each in a process of its own. Ours packs BATCH rows of LENGTH tokens a step. The peer is
tried in each of PEERS with each of ATTENTIONS: the same rows packed its own way (`packing`, without padding); rows of
LENGTH tokens cut from one stream (`wrapped`), in which chats see each other, so that it trains something else and does
less; and about as many tokens in chats of like length that are padded to the longest. After a few steps of each, the
FINALISTS that were fastest are timed beside ours: the sides take turns, the better of ROUNDS runs counts, and of a run
the median step. Tokens are those of chats, counted alike; padding is none.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.training import Clock, newest
from genai_core.config.pipeline import load_pipeline
from genai_core.config.training import InstructConfig, LoraConfig
from genai_core.context import Context
from genai_core.data.chat import END_OF_TEXT, Chat, document_start, encode_chat, token_id
from genai_core.data.instruction.mixture import build_mixture
from genai_core.data.instruction.packing import pack
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_precision, prepare
from genai_core.models.adapters import add_adapters
from genai_core.models.transformer import Transformer, transformer_config
from genai_core.training.loop import train
from genai_core.training.objectives.assistant_tokens import AssistantTokens

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
LENGTH = 256
WARMUP = 6
"""Steps at the start that do not count: what is compiled is compiled by then."""
PROBE_STEPS = WARMUP + 6
"""Steps that tell, by the fastest of those that count, which settings of the peer are worth timing."""
FINALISTS = 2
ROUNDS = 2
PEERS: dict[str, dict[str, Any]] = {
    "packed": {"packing": True},
    "packed, compiled": {"packing": True, "torch_compile": True},
    "wrapped": {"packing": True, "packing_strategy": "wrapped"},
    "wrapped, compiled": {"packing": True, "packing_strategy": "wrapped", "torch_compile": True},
    "padded": {"train_sampling_strategy": "group_by_length"},
    "padded, compiled": {"train_sampling_strategy": "group_by_length", "pad_to_multiple_of": 32, "torch_compile": True},
}
ATTENTIONS = ("sdpa", "eager")
OURS = ("ours", "ours, compiled")
MIXED = "Wrapped rows hold chats that see each other: less to compute, and another training."


def chats_of(cleaned: Path, tokenizer: Any, steps: int, batch: int) -> list[Chat]:
    """Chats of the mixture that fit into a row, of which there are enough for so many steps."""
    mixed = build_mixture(cleaned, load_pipeline("laptop").mixture, seed=0)
    fitting = [chat.messages for chat in mixed if len(encode_chat(tokenizer, chat.messages)[0]) <= LENGTH]
    return fitting[:steps * batch * LENGTH // 20]      # no chat is shorter


def ours(base: Path, cleaned: Path, steps: int, batch: int, rank: int, compiled: bool) -> dict[str, float]:
    """Tokens a second of the training of the stage instruct."""
    config = InstructConfig(context_length=LENGTH, batch_size=batch, learning_rate=1e-3, text_fraction=0)
    clock, tokenizer, model = Clock(), load_tokenizer(base), load_model(base, CPU)
    if rank:
        add_adapters(model, LoraConfig(rank=rank), seed=0)
    chats = [encode_chat(tokenizer, chat) for chat in chats_of(cleaned, tokenizer, steps, batch)]
    rows = pack(chats, LENGTH, token_id(tokenizer, END_OF_TEXT), start=document_start(tokenizer))
    objective = AssistantTokens(model, rows, rows, config, CPU)
    objective.steps, objective.evaluation_steps = steps, frozenset()
    objective.evaluate = lambda step: {}      # type: ignore[method-assign]
    counts: list[float] = []
    made = objective.batch

    def counting(step: int) -> dict[str, torch.Tensor]:
        batch = made(step)
        segments = batch["segments"]
        counts.append(float((segments > 0).sum() + segments.amax(1).sum()))      # the last of a chat is a target alone
        return batch

    objective.batch = counting      # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(model, objective, config, Context(Path(folder), clock, device="cpu", checkpoint_seconds=1e9,
                                                compile="on" if compiled else "off"))
    return speeds_of(clock.ends, counts)


def peer(base: Path, cleaned: Path, steps: int, batch: int, rank: int, attention: str, setting: dict[str, Any]
         ) -> dict[str, float]:
    """Tokens a second of TRL's trainer in a setting."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    prepare(CPU, "off")
    tokenizer = load_tokenizer(base)
    chats = chats_of(cleaned, tokenizer, steps, batch)
    ends: list[float] = []
    counts: list[float] = []

    class EndOfStep(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
            mask = inputs.get("attention_mask")
            counts.append(float(inputs["input_ids"].numel() if mask is None else mask.sum()))
            return super().training_step(model, inputs, *rest, **more)

    adapters = None
    if rank:
        from peft import LoraConfig as PeftConfig

        adapters = PeftConfig(r=rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    mean = statistics.mean(len(encode_chat(tokenizer, chat)[0]) for chat in chats[:1000])
    rows = batch if "packing" in setting else round(batch * LENGTH / mean)
    with tempfile.TemporaryDirectory() as folder:
        Counting(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=attention),
            callbacks=[EndOfStep()],
            peft_config=adapters, processing_class=AutoTokenizer.from_pretrained(base),
            train_dataset=Dataset.from_list([{"messages": chat} for chat in chats]),
            args=SFTConfig(
                folder, max_steps=steps, per_device_train_batch_size=rows, max_length=LENGTH, learning_rate=1e-3,
                assistant_only_loss=True, use_cpu=True, bf16=choose_precision(CPU) is torch.bfloat16,
                activation_checkpointing=False, optim="adamw_torch_fused", save_strategy="no", report_to=[],
                logging_strategy="no", disable_tqdm=True, seed=0, **setting)).train()
    return speeds_of(ends, counts)


def speeds_of(ends: list[float], tokens: list[float]) -> dict[str, float]:
    """Tokens a second of the median step, and of the fastest, in which nothing was compiled."""
    seconds = [after - before for before, after in pairwise(ends)]
    each = [count / spent for count, spent in list(zip(tokens[1:], seconds, strict=True))[WARMUP:]]
    return {"median": statistics.median(each), "fastest": max(each)}


def apart(side: str, *arguments: Any, step: str = "median", minutes: int = 10) -> float:
    """Tokens a second of one side, in a process of its own; 0 where it fails, or takes longer."""
    command = [sys.executable, "-m", "benchmarks.sft_speed", "--one", side, *map(str, arguments)]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                                timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        print(f"{side}: given up after {minutes} minutes", flush=True)
        return 0.0
    if answer.returncode:
        print(f"{side}: {answer.stderr[-1500:]}", flush=True)
        return 0.0
    speed = float(json.loads(answer.stdout.splitlines()[-1])[step])
    print(f"{side}: {speed:,.0f} tokens/s", flush=True)
    return speed


def random_model(tokens: Path, directory: Path) -> None:
    """The directory of an untrained model of the preset laptop."""
    torch.manual_seed(0)
    shape = transformer_config(load_pipeline("laptop").pretrain, load_tokenizer(tokens).get_vocab_size())
    save_model(Transformer(shape), tokens, directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory; without it 2.0M random weights")
    parser.add_argument("--adapters", type=int, default=0, metavar="RANK", help="train adapters of this rank")
    parser.add_argument("--batch", type=int, default=16, help=f"rows of {LENGTH} tokens in a step")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        side, base, cleaned, *numbers = options.one
        steps, batch, rank = map(int, numbers)
        name, _, attention = side.rpartition(", ")
        one = ours(Path(base), Path(cleaned), steps, batch, rank, side != OURS[0]) if side in OURS else \
            peer(Path(base), Path(cleaned), steps, batch, rank, attention, PEERS[name])
        print(json.dumps(one))
        return
    home = Path(os.environ.get("GENAI_HOME", ROOT))
    cleaned = newest(home / "data" / "clean", "genai run --until tokenize")
    above = headline()
    with tempfile.TemporaryDirectory() as folder:
        base = options.model or Path(folder)
        if not options.model:
            random_model(newest(home / "data" / "tokenize", "genai run --until tokenize"), base)
        where, numbers = (base.resolve(), cleaned.resolve()), (options.batch, options.adapters)
        probes = {side: apart(side, *where, PROBE_STEPS, *numbers, step="fastest", minutes=5)
                  for side in (f"{name}, {attention}" for name in PEERS for attention in ATTENTIONS)}
        finalists = sorted((side for side in probes if probes[side]), key=lambda side: -probes[side])[:FINALISTS]
        if not finalists:
            sys.exit("no setting of TRL could be timed; what each says is above")
        rounds = [{side: apart(side, *where, options.steps, *numbers) for side in (*finalists, *OURS)}
                  for _ in range(ROUNDS)]
    speeds = {side: max(each[side] for each in rounds) for side in rounds[0]}
    best, own = max(finalists, key=lambda side: speeds[side]), max(OURS, key=lambda side: speeds[side])
    if not speeds[best] or not speeds[own]:
        sys.exit(f"{own if speeds[best] else best} could not be timed; what it says is above")
    trained = f"{options.model.name if options.model else '2.0M'}, " \
        f"{f'adapters of rank {options.adapters}' if options.adapters else 'all weights'}"
    lines = [f"{above}, {torch.get_num_threads()} threads, {str(choose_precision(CPU))[6:]}; {trained}, "
             f"{options.batch} rows of {LENGTH} tokens", "", "| side | tokens/s of chats | of TRL's best |",
             "|---|---:|---:|",
             *(f"| {side if side in OURS else f'TRL, {side}'} | {speed:,.0f} | {speed / speeds[best]:.2f} |"
               for side, speed in speeds.items()), "",
             f"TRL, the fastest of few steps of each setting: "
             f"{', '.join(f'{side} {speed:,.0f}' for side, speed in probes.items())}. {MIXED}"]
    worse = keep_and_compare(options.output.with_suffix(".json"), "fine-tuning speed",
                             {f"{trained}, ratio to TRL": speeds[own] / speeds[best]})
    put_between_marks(options.output, f"fine-tuning speed, {trained}", f"Fine-tuning, {trained}",
                      "\n".join(lines) + "\n" + worse)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
