"""Training of the encoder-decoder transformer."""

from pathlib import Path

import torch

from genai_core.context import Context, Result
from genai_core.families.directory import save_family_model
from genai_core.families.encoder_decoder.config import EncoderDecoderConfig
from genai_core.families.encoder_decoder.objective import TargetTokens
from genai_core.families.encoder_decoder.pairs import PairCodec
from genai_core.families.encoder_decoder.transformer import T5, T5Shape
from genai_core.hardware import choose_device
from genai_core.training.loop import train
from genai_core.training.outcome import outcome


def run(config: EncoderDecoderConfig, *, source_tokens: int, target_tokens: int, data: Path,
        out_dir: Path, context: Context) -> Result:
    """Train on the pairs in `data`, cut to the lengths of the stage that made them; write the model directory."""
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    codec = PairCodec.load(data, source_tokens, target_tokens)
    shape = T5Shape(codec.tokenizer.get_vocab_size(), config.hidden_size, config.heads, config.encoder_layers,
                    config.decoder_layers, config.feed_forward_size, source_tokens, target_tokens)
    model = T5(shape).to(device)
    trained = train(model, TargetTokens(model, data, codec, config, device), config, context)
    save_family_model(model, "t5", shape, out_dir, data)
    return outcome(trained, model, out_dir, "validation_loss")
