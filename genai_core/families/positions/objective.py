"""Next-token prediction with the transformer whose positions, or whose optimizer, are compared."""

from functools import partial
from pathlib import Path

from genai_core.context import Context, Result
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.families.positions.config import PositionalConfig
from genai_core.families.positions.model import PositionalLanguageModel, PositionalShape
from genai_core.families.training import train_family_model
from genai_core.training.objectives.next_token import NextToken


def run(config: PositionalConfig, *, tokens: Path, out_dir: Path, context: Context) -> Result:
    """Train a new transformer on `tokens` and write its model directory to `out_dir`."""
    shape = PositionalShape(config.positions, load_tokenizer(tokens).get_vocab_size(), config.hidden_size,
                            config.heads, config.layers, config.feed_forward_size, config.context_length)
    objective = partial(NextToken, tokens_dir=tokens, config=config)
    return train_family_model("positional", PositionalLanguageModel, shape, objective, config, context, out_dir,
                              figures=("bits_per_byte/",), tokenizer_dir=tokens)
