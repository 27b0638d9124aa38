"""How fast models answer on this machine: our engine, `generate` of `transformers`, and llama.cpp on GGUF files.

    python -m benchmarks.decode_speed                     ten minutes; into docs/benchmarks.md
    python -m benchmarks.decode_speed --sizes 2M --batches 1

The same weights everywhere, with as many threads as there are cores, 128 new tokens by greedy decoding after prompts of
16; nothing ends an answer early. Speeds are the best of three runs after one that is not counted. Compilation is stated
apart: `transformers` with a cache of its own is its best on a CPU without compiling. Ours is the step in C; beside it
stands the same engine with PyTorch's step, eager and compiled.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import headline, keep_and_compare, put_between_marks
from benchmarks.train_speed import SIZES, config_of
from genai_core.data.tokens.tokenizer import save_tokenizer, train_tokenizer
from genai_core.export.gguf import FILE, Format
from genai_core.export.model_directory import save_model
from genai_core.inference.engine import Engine
from genai_core.mapping import usable_cores
from genai_core.models.transformer import Transformer, transformer_config
from genai_core.quantization.directory import quantize_to_directory
from genai_core.quantization.speed import BATCHES, best_rate, measure_speed

ROOT = Path(__file__).parents[1]
PROMPT, NEW, VOCABULARY = 16, 128, 4096
FORMATS: tuple[Format, ...] = ("F32", "Q8_0", "Q4_0", "IQ4_NL")


def random_model(size: str) -> Transformer:
    """Of a shape alone: how fast it answers does not depend on what it learned."""
    torch.manual_seed(0)
    model = Transformer(transformer_config(config_of(size, 4096), VOCABULARY))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def of_ours(model: Transformer, prompts: list[list[int]], compiled: bool = False, native: bool = False
            ) -> tuple[float, float]:
    """Tokens a second, and seconds of the first call."""
    os.environ["GENAI_NATIVE"] = str(int(native))
    engine = Engine(model, len(prompts), PROMPT + NEW, new_tokens=NEW, end_ids=set(), pad_id=0, compiled=compiled)
    began = time.perf_counter()
    list(engine.run(prompts))
    first = time.perf_counter() - began
    return best_rate(lambda: list(engine.run(prompts)), NEW * len(prompts)), first


def of_transformers(directory: Path, prompts: list[list[int]], new_tokens: int = NEW) -> float:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.tensor(prompts)

    def call() -> Any:
        with torch.no_grad():
            return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                                  min_new_tokens=new_tokens, do_sample=False)

    return best_rate(call, new_tokens * len(prompts))


def measure(size: str, batch: int, directory: Path, model: Transformer, llama_cpp: dict[str, dict[str, float]]
            ) -> dict[str, Any]:
    prompts = torch.randint(3, VOCABULARY, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    native, _ = of_ours(model, prompts, native=True)
    eager, _ = of_ours(model, prompts)
    compiled, first = of_ours(model, prompts, compiled=True)
    row = {"size": size, "batch": batch, "transformers": of_transformers(directory, prompts), "ours": native,
           "eager": eager, "compiled": compiled, "compile_seconds": first}
    row |= {form: figures["tokens_per_second" if batch == 1 else f"tokens_per_second_{batch}"]
            for form, figures in llama_cpp.items()}
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["2M", "14M"])
    parser.add_argument("--batches", nargs="+", type=int, choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    above, rows = headline(), []
    for size in options.sizes:
        model = random_model(size)
        with tempfile.TemporaryDirectory() as folder:
            directory, tokenizer = Path(folder) / "model", Path(folder) / "tokenizer"
            directory.mkdir()
            tokenizer.mkdir()
            save_tokenizer(train_tokenizer((chr(number) * 3 for number in range(200)), 512), tokenizer)
            save_model(model, tokenizer, directory)
            llama_cpp = {}
            for form in FORMATS:
                quantize_to_directory(model, form, directory, directory / form)
                llama_cpp[form] = measure_speed(directory / form / FILE, NEW, usable_cores())
            rows += [measure(size, batch, directory, model, llama_cpp) for batch in options.batches]
    lines = ["| parameters | at once | `transformers` | ours | PyTorch's step | compiled | (first call) | " +
             " | ".join(f"llama.cpp {form}" for form in FORMATS) + " |", "|---|" + "---:|" * (7 + len(FORMATS) - 1)]
    figures = {}
    for row in rows:
        peer = row["transformers"]
        lines.append(f"| {row['size']} | {row['batch']} | {peer:,.0f} | {row['ours']:,.0f} ({row['ours'] / peer:.2f}) "
                     f"| {row['eager']:,.0f} ({row['eager'] / peer:.2f}) "
                     f"| {row['compiled']:,.0f} ({row['compiled'] / peer:.2f}) | {row['compile_seconds']:.0f} s | "
                     + " | ".join(f"{row[form]:,.0f}" for form in FORMATS) + " |")
        figures |= {f"{row['size']}, batch {row['batch']}, {name} to transformers": row[name] / peer
                    for name in ("ours", "eager", "compiled", *FORMATS)}
    print("\n".join(lines))
    worse = keep_and_compare(options.output.with_suffix(".json"), "decoding", figures)
    put_between_marks(options.output, "decoding", "Answering", "\n".join([f"{above}; tokens/s, in brackets times those "
                                                                           "of `transformers`", "", *lines])
                      + "\n" + worse)


if __name__ == "__main__":
    main()
