"""Next-token prediction with recurrent layers: the objective is the transformer's, the model another one."""

from functools import partial
from pathlib import Path

from genai_core.context import Context, Result
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.families.recurrent.config import RecurrentConfig
from genai_core.families.recurrent.model import RecurrentLanguageModel, RecurrentShape
from genai_core.families.training import train_family_model
from genai_core.training.objectives.next_token import NextToken


class RecurrentNextToken(NextToken):
    """Cross-entropy of each token given those before it in its window."""

    fixed_shapes = False      # compiled, the steps over time would be unrolled: minutes before the first one


def run(config: RecurrentConfig, *, tokens: Path, out_dir: Path, context: Context) -> Result:
    """Train a new recurrent model on `tokens` and write its model directory to `out_dir`."""
    shape = RecurrentShape(config.cell, load_tokenizer(tokens).get_vocab_size(), config.embedding_size,
                           config.hidden_size, config.layers, config.context_length)
    objective = partial(RecurrentNextToken, tokens_dir=tokens, config=config)
    return train_family_model("recurrent", RecurrentLanguageModel, shape, objective, config, context, out_dir,
                              figures=("bits_per_byte/",), tokenizer_dir=tokens)
