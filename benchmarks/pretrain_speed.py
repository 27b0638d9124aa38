"""How much faster the pretraining of a preset is than the same model in eager float32, compilation included.

    python benchmarks/pretrain_speed.py [--preset laptop] [--eager-tokens 200000]

Needs the token files of a finished run of the preset. Each side runs in a process of its own, one after the other, on
the same windows of the same text. The eager side is what a plain script would do: float32, the default AdamW instead of
Muon, default allocator; it stops after a part of the tokens, as its speed does not change. The other side is the stage
itself with all its tokens, its validation measurements left out of neither the time nor the work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def eager(tokens_dir: Path, preset: str, tokens: int) -> dict[str, float]:
    import torch

    from genai_core.config.pipeline import load_pipeline
    from genai_core.data.tokens.tokenizer import load_tokenizer
    from genai_core.models.transformer import Transformer, transformer_config
    from genai_core.training.objectives.next_token import NextToken

    config = load_pipeline(preset).pretrain
    torch.manual_seed(config.seed)
    model = Transformer(transformer_config(config, load_tokenizer(tokens_dir).get_vocab_size()))
    objective = NextToken(model, tokens_dir, config, torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    done, began = 0, time.perf_counter()
    for step in range(max(1, tokens // (config.batch_size * config.context_length))):
        batch = objective.batch(step)
        loss = objective.loss(batch)[0] / objective.targets(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        done += objective.size(batch)
    return {"tokens": done, "seconds": time.perf_counter() - began}


def ours(tokens_dir: Path, preset: str) -> dict[str, float]:
    from genai_core.config.pipeline import load_pipeline
    from genai_core.context import Context
    from genai_core.stages import pretrain

    config = load_pipeline(preset).pretrain
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        out.mkdir()
        began = time.perf_counter()
        result = pretrain.run(config, tokens=tokens_dir, out_dir=out,
                              context=Context(Path(folder) / "checkpoints"))
        return {"tokens": result.metrics["tokens"], "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--eager-tokens", type=int, default=200_000)
    parser.add_argument("--side", choices=("eager", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = Path(os.environ.get("GENAI_HOME", Path(__file__).parents[1]))
    found = sorted((home / "data" / "tokenize").glob("*"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"no token files under {home}/data; run `genai run --preset {options.preset}` first")
    if options.side:
        result = eager(found[-1], options.preset, options.eager_tokens) if options.side == "eager" \
            else ours(found[-1], options.preset)
        print(json.dumps(result))
        return
    speeds = {}
    for side in ("eager", "ours"):
        # an empty compilation cache: the time of a first run is what counts
        with tempfile.TemporaryDirectory() as cache:
            output = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--side", side], check=True, text=True,
                                    env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}, stdout=subprocess.PIPE).stdout
        result = json.loads(output.splitlines()[-1])
        speeds[side] = result["tokens"] / result["seconds"]
        print(f"{side:6} {result['tokens']:>10,.0f} tokens {result['seconds']:8.1f} s {speeds[side]:>9,.0f} tokens/s",
              flush=True)
    print(f"ratio {speeds['ours'] / speeds['eager']:.2f}")


if __name__ == "__main__":
    main()
