"""Next-token prediction with recurrent layers: the objective is the transformer's, the model another one."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.data.tokenizer import load_tokenizer
from genai_core.families.directory import save_family_model
from genai_core.families.recurrent.config import RecurrentConfig
from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.objectives.next_token import NextToken
from genai_core.training.outcome import outcome


def run(config: RecurrentConfig, *, tokens: Path, out_dir: Path, context: Context) -> Result:
    """Train a new recurrent model on `tokens` and write its model directory to `out_dir`."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    shape = RecurrentShape(config.cell, load_tokenizer(tokens).get_vocab_size(), config.embedding_size,
                           config.hidden_size, config.layers, config.context_length)
    model = RecurrentLanguageModel(shape).to(device)
    objective = NextToken(model, tokens, config, device)
    objective.fixed_shapes = False      # compiled, the steps over time would be unrolled: minutes before the first one
    trained = train(model, objective, config, context)
    save_family_model(model, "recurrent", shape, out_dir, tokens)
    return outcome(trained, model, out_dir, "bits_per_byte/")
