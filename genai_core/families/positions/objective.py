"""Next-token prediction with the transformer whose positions, or whose optimizer, are compared."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.data.tokenizer import load_tokenizer
from genai_core.families.directory import save_family_model
from genai_core.families.positions.config import PositionalConfig
from genai_core.families.positions.model import PositionalLanguageModel, PositionalShape
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.objectives.next_token import NextToken
from genai_core.training.outcome import outcome


def run(config: PositionalConfig, *, tokens: Path, out_dir: Path, context: Context) -> Result:
    """Train on `tokens` and write the model directory to `out_dir`."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    shape = PositionalShape(config.positions, load_tokenizer(tokens).get_vocab_size(), config.hidden_size,
                            config.heads, config.layers, config.feed_forward_size, config.context_length)
    model = PositionalLanguageModel(shape).to(device)
    trained = train(model, NextToken(model, tokens, config, device), config, context)
    save_family_model(model, "positional", shape, out_dir, tokens)
    return outcome(trained, model, out_dir, "bits_per_byte/")
