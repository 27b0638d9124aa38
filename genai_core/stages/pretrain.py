"""The stage pretrain: a new transformer, or a base from outside, learns to predict the next token of token files."""

from pathlib import Path

import torch

from genai_core.config.training import PretrainConfig
from genai_core.context import Context, Result
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_device
from genai_core.models.contexts import require_context
from genai_core.models.huggingface import HuggingFaceModel
from genai_core.models.transformer import Transformer, transformer_config
from genai_core.training.loop import train
from genai_core.training.objectives.next_token import NextToken


def run(config: PretrainConfig, *, tokens: Path, out_dir: Path, context: Context, adopted: Path | None = None
        ) -> Result:
    """Train a new model on `tokens`, or the model directory `adopted` further, and write its model directory to
    `out_dir`."""
    tokenizer = load_tokenizer(tokens)
    torch.manual_seed(config.seed)
    device = choose_device(context.device)
    model: Transformer | HuggingFaceModel = load_model(adopted, device) if adopted else \
        Transformer(transformer_config(config, tokenizer.get_vocab_size())).to(device)
    require_context("pretrain", config, model.context_length)
    objective = NextToken(model, tokens, config, device)
    trained = train(model, objective, config, context)
    save_model(model, tokens, out_dir)
    return trained.outcome(model, out_dir, "bits_per_byte", "validation_loss")
