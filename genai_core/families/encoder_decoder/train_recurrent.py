"""Training of the recurrent encoder-decoders."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.directory import save_family_model
from genai_core.families.encoder_decoder.config import Seq2SeqConfig
from genai_core.families.encoder_decoder.objective import TargetTokens
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.recurrent import RecurrentSeq2Seq, Seq2SeqShape
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.outcome import outcome


def run(config: Seq2SeqConfig, *, source_tokens: int, target_tokens: int, data: Path,
        out_dir: Path, context: Context) -> Result:
    """Train on the pairs in `data`, cut to the lengths of the stage that made them; write the model directory."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    codec = PairCodec.load(data, source_tokens, target_tokens)
    shape = Seq2SeqShape(config.cell, config.attention, codec.tokenizer.get_vocab_size(), config.embedding_size,
                         config.hidden_size, source_tokens, target_tokens)
    model = RecurrentSeq2Seq(shape).to(device)
    trained = train(model, TargetTokens(model, data, codec, config, device), config, context)
    save_family_model(model, "seq2seq", shape, out_dir, data)
    return outcome(trained, model, out_dir, "validation_loss")
