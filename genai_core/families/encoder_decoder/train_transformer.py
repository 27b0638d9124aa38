"""Training of the encoder-decoder transformer."""

from functools import partial
from pathlib import Path

from genai_core.context import Context, Result
from genai_core.families.encoder_decoder.config import EncoderDecoderConfig
from genai_core.families.encoder_decoder.objective import TargetTokens
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.transformer import T5, T5Shape
from genai_core.families.training import train_family_model


def run(config: EncoderDecoderConfig, *, source_tokens: int, target_tokens: int, data: Path,
        out_dir: Path, context: Context) -> Result:
    """Train on the pairs in `data`, cut to the lengths of the stage that made them; write the model directory."""
    codec = PairCodec.load(data, source_tokens, target_tokens)
    shape = T5Shape(codec.tokenizer.get_vocab_size(), config.hidden_size, config.heads, config.encoder_layers,
                    config.decoder_layers, config.feed_forward_size, source_tokens, target_tokens)
    objective = partial(TargetTokens, data=data, codec=codec, config=config)
    return train_family_model("t5", T5, shape, objective, config, context, out_dir,
                              figures=("validation_loss",), tokenizer_dir=data)
