"""The chain on a base from outside: taken in, its tokenizer used, fine-tuned, aligned, quantized and evaluated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genai_core.config.base_model import BaseModelConfig
from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from genai_core.stages import (
    adopt,
    clean,
    collect,
    evaluate,
    instruct,
    pretrain,
    quantize,
    reward,
    rlhf,
    tokenize,
)
from tests.genai_core.bases import LLAMA_TEMPLATE, published


@pytest.fixture
def own_data(prose, tmp_path) -> Path:
    """Text, chats and preferences, no two alike."""
    folder = tmp_path / "own"
    folder.mkdir()
    lines = [line.strip() for page in prose for line in page.split("\n\n") if 80 < len(line.strip()) < 600]
    lines = list(dict.fromkeys(" ".join(line.split()) for line in lines))
    documents, others = lines[:300], lines[300:]
    rows = {"text": [{"text": line} for line in documents],
            "chats": [{"messages": [{"role": "user", "content": line[:30]},
                                    {"role": "assistant", "content": line[30:70]}]} for line in others[:150]],
            "preferences": [{"prompt": line[:20], "chosen": line[20:60], "rejected": line[40:50]}
                            for line in others[150:300]]}
    for name, records in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def run_chain(folder: Path, own_data: Path, base: Path, *, continued: bool = False):
    sources = {name: {"kind": "files", "paths": [str(own_data / f"{name}.jsonl")], "licence": "own", "content": content}
               for name, content in (("text", "documents"), ("chats", "chats"), ("preferences", "preferences"))}
    overrides = {"base.source": str(base), "collect.replace_sources": True, "instruct.context_length": 64,
                 "reward.context_length": 48, "instruct.batch_size": 8, "quantize.calibration_tokens": 2048,
                 "quantize.validation_tokens": 1024, "evaluate.bits_per_byte_tokens": 1024, "rlhf.steps": 2,
                 "rlhf.completion_tokens": 8, "instruct.epochs": 0.5, "reward.epochs": 0.5,
                 "clean.near_duplicate_threshold": 1, **{f"collect.sources.{name}": source
                                                         for name, source in sources.items()},
                 # of random weights, not of a pretrained base: what they say is far from certain, also in bfloat16
                 "instruct.optimizer": "muon", "instruct.learning_rate": 5e-3, "instruct.matrix_learning_rate": 0.01}
    if continued:
        overrides["pretrain.tokens"] = 4096
    config = load_pipeline("smoke", overrides)
    context = Context(folder / "checkpoints", root=folder, device="cpu", compile="off")
    made = {name: folder / name for name in config.stage_names}

    def run(name, stage, *arguments, **inputs):
        made[name].mkdir(parents=True)
        own = replace(context, checkpoint_dir=folder / "checkpoints" / name)
        return stage.run(*arguments, **inputs, out_dir=made[name], context=own)

    run("adopt", adopt, config.base)
    run("collect", collect, config.collect)
    run("clean", clean, config.clean, collected=made["collect"])
    run("tokenize", tokenize, config.tokenize, cleaned=made["clean"], adopted=made["adopt"])
    if continued:
        run("pretrain", pretrain, config.pretrain, tokens=made["tokenize"], adopted=made["adopt"])
    first = made["pretrain" if continued else "adopt"]
    data = {"cleaned": made["clean"], "tokens": made["tokenize"]}
    run("instruct", instruct, config.instruct, base=first, mixture=config.mixture, **data)
    run("reward", reward, config.reward, instruct=made["instruct"], cleaned=made["clean"], gold=config.evaluate.gold)
    run("rlhf", rlhf, config.rlhf, instruct=made["instruct"], reward=made["reward"], questions=config.questions,
        mixture=config.mixture, fine_tuning=config.instruct, gold=config.evaluate.gold, judged=(), **data)
    result = run("quantize", quantize, config.quantize, model=made["rlhf"], mixture=config.mixture,
                 fine_tuning=config.instruct, **data)
    figures = run("evaluate", evaluate, config.evaluate, base=first, quantized=made["quantize"],
                  tasks=config.active_tasks, mixture=config.mixture, mixture_seed=config.instruct.seed,
                  alignment=config.rlhf, judging=config.reward, instruct=made["instruct"], reward=made["reward"],
                  rlhf=made["rlhf"], **data)
    return config, made, result.metrics, figures.metrics


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "template", "continued"), [
    ("qwen3", "", True), ("llama", LLAMA_TEMPLATE, False), ("gemma3_text", "", False)])
def test_every_stage_runs_on_a_base_from_outside(layout, template, continued, tmp_path, own_data, prose):
    base = published(tmp_path / "base", layout, prose[:60], template)
    config, made, sizes, figures = run_chain(tmp_path / "run", own_data, base, continued=continued)
    assert ("pretrain" in config.stage_names) == continued
    files = [(directory / "tokenizer.json").read_bytes() for name, directory in made.items()
             if name in ("adopt", "tokenize", "instruct", "reward", "rlhf")]
    assert len(set(files)) == 1, "one tokenizer, the base's, from end to end"
    assert sizes["int8/size_ratio"] < 0.9 and sizes["int4/size_ratio"] < sizes["int8/size_ratio"]
    assert sizes["int8/bits_per_byte_ratio"] == pytest.approx(1, abs=0.02)
    assert {"base/bits_per_byte", "instruct/bits_per_byte", "rlhf/bits_per_byte", "int8/bits_per_byte"} <= set(figures)
    provenance = json.loads((made["adopt"] / "base.json").read_text())
    assert provenance["layout"] == layout and provenance["files"]


def test_a_base_has_its_licence_in_its_provenance_or_says_that_it_states_none(tmp_path, prose):
    base = published(tmp_path / "base", "qwen3", prose[:10])
    out = tmp_path / "out"
    out.mkdir()
    adopt.run(BaseModelConfig(source=str(base)), out_dir=out, context=Context(tmp_path))
    assert json.loads((out / "base.json").read_text())["licence"] == "not stated"
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    adopt.run(BaseModelConfig(source=str(base)), out_dir=out, context=Context(tmp_path))
    assert json.loads((out / "base.json").read_text())["licence"] == "apache-2.0"
