"""Training of the recurrent encoder-decoders."""

from functools import partial
from pathlib import Path

from genai_core.context import Context, Result
from genai_core.families.encoder_decoder.config import Seq2SeqConfig
from genai_core.families.encoder_decoder.objective import TargetTokens
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.families.training import train_family_model


def run(config: Seq2SeqConfig, *, source_tokens: int, target_tokens: int, data: Path,
        out_dir: Path, context: Context) -> Result:
    """Train on the pairs in `data`, cut to the lengths of the stage that made them; write the model directory."""
    codec = PairCodec.load(data, source_tokens, target_tokens)
    shape = Seq2SeqShape(config.cell, config.attention, codec.tokenizer.get_vocab_size(), config.embedding_size,
                         config.hidden_size, source_tokens, target_tokens)
    objective = partial(TargetTokens, data=data, codec=codec, config=config)
    return train_family_model("seq2seq", RecurrentSeq2Seq, shape, objective, config, context, out_dir,
                              figures=("validation_loss",), tokenizer_dir=data)
