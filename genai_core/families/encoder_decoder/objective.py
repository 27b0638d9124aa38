"""Cross-entropy of each target token given the source and the target before it (teacher forcing)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.data.tokens.batches import IGNORED
from genai_core.families.encoder_decoder.config import PairTrainConfig
from genai_core.families.encoder_decoder.interface import EncoderDecoder
from genai_core.families.encoder_decoder.pairs import PairBatches, PairCodec, read_pairs
from genai_core.models.flops import flops_per_token, matrix_weights
from genai_core.training.objectives.objective import Batch, Objective, evenly_spaced

VALIDATION_BATCH = 100


class TargetTokens(Objective):
    """Cross-entropy in nats a target token, the end token included."""

    unit = "pairs"
    fixed_shapes = False      # batches are as long as their longest pair

    def __init__(self, model: EncoderDecoder, data: Path, codec: PairCodec, config: PairTrainConfig,
                 device: torch.device):
        self.model = model
        self.codec = codec
        self.config = config
        self.device = device
        self.batches = PairBatches(read_pairs(data, "train"), codec, config.batch_size, config.seed)
        self.steps = max(1, config.pairs // config.batch_size)
        lengths = [len(row) for rows in (self.batches.sources, self.batches.targets) for row in rows]
        # a token passes through about half of the weights: those of the encoder, or those of the decoder
        per_token = flops_per_token(matrix_weights(model, "embedding")) / 2
        self.flops = per_token * sum(lengths) / len(self.batches.sources) * self.steps * config.batch_size
        self.evaluation_steps = evenly_spaced(self.steps, config.evaluations)
        self.validation = read_pairs(data, "validation")

    def batch(self, step: int) -> Batch:
        return {name: tensor.to(self.device) for name, tensor in self.batches.batch(step).items()}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch, self.config.label_smoothing), {}

    def _loss(self, batch: Batch, smoothing: float) -> Tensor:
        logits = self.model(batch["source"], batch["source"] != self.codec.pad, batch["inputs"])
        targets = batch["targets"].masked_fill(batch["targets"] == self.codec.pad, IGNORED)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum",
                               label_smoothing=smoothing)

    def targets(self, batch: Batch) -> Tensor:
        return (batch["targets"] != self.codec.pad).sum()

    def size(self, batch: Batch) -> int:
        return len(batch["source"])

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        loss, count = 0.0, 0.0
        for first in range(0, len(self.validation), VALIDATION_BATCH):
            pairs = self.validation[first:first + VALIDATION_BATCH]
            target = self.codec.padded(self.codec.targets([pair.target for pair in pairs])).to(self.device)
            source = self.codec.padded(self.codec.sources([pair.source for pair in pairs])).to(self.device)
            batch = {"source": source, "inputs": target[:, :-1], "targets": target[:, 1:]}
            loss += self._loss(batch, 0.0).item()
            count += self.targets(batch).item()
        return {"validation_loss": loss / count}
