"""What only a GPU shows: every stage and family on it, no waiting in a step, memory, deterministic kernels."""

import os
import subprocess
import sys

import pytest
import torch

from genai_core.config.training import PretrainConfig
from genai_core.context import Context
from genai_core.models.transformer import Transformer, TransformerConfig
from genai_core.stages import pretrain
from genai_core.training.objectives import cross_entropy
from genai_core.training.objectives.cross_entropy import in_pieces, token_loss
from genai_core.training.objectives.next_token import NextToken
from tasks.catalog import FAMILIES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = "cuda"
CONFIG = {"layers": 2, "hidden_size": 128, "heads": 2, "key_value_heads": 1, "head_size": 64, "feed_forward_size": 256,
          "context_length": 128, "batch_size": 8, "tokens": 128 * 8 * 40, "learning_rate": 3e-3, "optimizer": "muon",
          "evaluations": 1, "validation_tokens": 1024}


def pretrained(tokens, folder, recorder, **context):
    out = folder / "out"
    out.mkdir(parents=True)
    result = pretrain.run(PretrainConfig(**CONFIG), tokens=tokens, out_dir=out,
                          context=Context(folder / "checkpoints", recorder, device=GPU, **context))
    return result, (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["", *FAMILIES])
def test_every_stage_and_family_runs_on_a_gpu(family, tmp_path):
    environment = {**os.environ, "GENAI_HOME": str(tmp_path)}
    chosen = ["--family", family] if family else []
    done = subprocess.run([sys.executable, "-m", "flows.cli.command", "run", "--preset", "smoke", *chosen, "--set",
                           f"runtime.device={GPU}"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("compile_", ["off", "on"])
def test_it_learns_what_a_cpu_learns(tokens, tmp_path, recorder, compile_):
    on_gpu, _ = pretrained(tokens, tmp_path / "gpu", recorder, compile=compile_)
    out = tmp_path / "cpu"
    out.mkdir()
    on_cpu = pretrain.run(PretrainConfig(**CONFIG), tokens=tokens, out_dir=out,
                          context=Context(tmp_path / "checkpoints", recorder, device="cpu", compile="off"))
    assert on_gpu.metrics["loss"] == pytest.approx(on_cpu.metrics["loss"], rel=0.03)


def test_no_step_waits_for_the_gpu(tokens, tmp_path, recorder):
    """After the first, which compiles nothing here but allocates; readings, every 16 steps, are allowed to wait."""
    from genai_core.training.loop import _Training

    config = PretrainConfig(**CONFIG)
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(700, 128, 2, 2, 1, 64, 256, 128)).to(GPU)
    objective = NextToken(model, tokens, config, torch.device(GPU))
    training = _Training(model, objective, config, Context(tmp_path, recorder, device=GPU, compile="off"))
    training.advance()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(10):
            training.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_deterministic_mode_gives_the_same_bytes(tokens, tmp_path, recorder):
    first, second = (pretrained(tokens, tmp_path / name, recorder, compile="off", deterministic="on")[1]
                     for name in "ab")
    assert first == second


def test_recomputed_activations_change_nothing_and_take_less_memory(recorder):
    ids = torch.randint(0, 700, (16, 512), device=GPU)
    losses, peaks = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = Transformer(TransformerConfig(700, 256, 8, 4, 2, 64, 768, 512)).to(GPU)
        model.model.recompute_activations = recompute
        torch.cuda.reset_peak_memory_stats()
        loss = token_loss(model, model.hidden(ids), ids)
        loss.backward()
        losses.append(loss.item())
        peaks.append(torch.cuda.max_memory_allocated())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and peaks[1] < 0.7 * peaks[0]


def test_logits_in_pieces_take_a_part_of_the_memory(monkeypatch):
    torch.manual_seed(0)
    states = torch.randn(16_384, 256, device=GPU, dtype=torch.bfloat16, requires_grad=True)
    head = torch.randn(32_768, 256, device=GPU, requires_grad=True)
    targets = torch.randint(0, 32_768, (16_384,), device=GPU)
    torch.cuda.reset_peak_memory_stats()
    whole = torch.nn.functional.cross_entropy((states @ head.to(states.dtype).T).float(), targets, reduction="sum")
    whole.backward()
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    pieces = in_pieces(states, head, targets, None)
    pieces.backward()
    assert torch.cuda.max_memory_allocated() < most / 2
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-3)
    assert cross_entropy.MANY_LOGITS < 64 * 1024 * 50_304      # the preset gpu uses them
