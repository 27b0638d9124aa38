"""The stage reward: a scalar head learns to order texts as human raters do."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.config.training import RewardConfig
from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.data.packing import epoch_rows
from genai_core.data.tables import Rows, read_table
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.preferences import calibration_error, pair_accuracy, tfidf_ridge_scores
from genai_core.export.model_directory import load_model
from genai_core.hardware import choose_device
from genai_core.models.reward import RewardModel, encode_texts, save_reward_model, score_texts
from genai_core.models.transformer import training_flops_per_token
from genai_core.result import Result
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import Run, train
from genai_core.training.objective import Batch, Objective


class BradleyTerry(Objective):
    """−log σ(r_better − r_worse) over all pairs of a batch (Bradley & Terry 1952; Ouyang et al. 2022, eq. 1).

    A batch holds rated texts, and every two whose ratings are far enough apart are a pair: B texts cost B forward
    passes and give up to B(B−1)/2 pairs.
    """

    unit = "texts"
    fixed_shapes = False

    def __init__(self, model: RewardModel, tokenizer: Any, rows: Rows, validation: Rows, config: RewardConfig,
                 device: torch.device):
        self.model, self.tokenizer, self.config, self.device = model, tokenizer, config, device
        self.ids, self.last = encode_texts(tokenizer, [row["text"] for row in rows], config.context_length)
        self.ratings = torch.tensor([row["rating"] for row in rows], dtype=torch.float32)
        self.validation = validation
        self.blank_id = token_id(tokenizer, END_OF_TEXT)
        self.steps = max(1, round(len(rows) * config.epochs / config.batch_size))
        self.flops = self.steps * config.batch_size * self.ids.shape[1] \
            * training_flops_per_token(model.config, self.ids.shape[1])
        self.evaluation_steps = frozenset(self.steps * part // 4 for part in (1, 2, 3))

    def batch(self, step: int) -> Batch:
        count = len(self.ratings)
        rows = torch.from_numpy(epoch_rows(count, step, self.config.batch_size, self.config.seed))
        longest = int(self.last[rows].max()) + 1
        return {"ids": self.ids[rows, :longest].to(self.device), "last": self.last[rows].to(self.device),
                "ratings": self.ratings[rows].to(self.device)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        rewards = self.model(self._drop_tokens(batch["ids"], batch["last"]), batch["last"])
        pairs = self._pairs(batch)
        difference = rewards[:, None] - rewards[None, :]
        right = ((difference > 0) & pairs).sum()
        return (F.softplus(-difference) * pairs).sum(), {"accuracy": right.detach()}

    def _drop_tokens(self, ids: Tensor, last: Tensor) -> Tensor:
        """Training ids with a random share of the tokens blanked, the last one never (word dropout)."""
        blank = torch.rand(ids.shape, device=ids.device) < self.config.token_dropout
        blank &= torch.arange(ids.shape[1], device=ids.device)[None] < last[:, None]
        return ids.masked_fill(blank, self.blank_id)

    def _pairs(self, batch: Batch) -> Tensor:
        """True at (i, j) where text i is rated higher than text j by enough."""
        return batch["ratings"][:, None] - batch["ratings"][None, :] >= self.config.min_rating_gap

    def targets(self, batch: Batch) -> float:
        """Pairs within the micro-batches that the loop will cut."""
        size = len(batch["ratings"]) // self.config.accumulation_steps
        return max(1, sum(int(self._pairs({"ratings": part}).sum()) for part in batch["ratings"].split(size)))

    def size(self, batch: Batch) -> int:
        return len(batch["ratings"])

    def evaluate(self, step: int) -> dict[str, float]:
        if len(self.validation) < 2:
            return {}
        scores = score_texts(self.model, self.tokenizer, [row["text"] for row in self.validation],
                             self.config.context_length).numpy()
        ratings = np.array([row["rating"] for row in self.validation])
        return {"validation_accuracy": pair_accuracy(scores, ratings, 1.0)}


def run(config: RewardConfig, *, instruct: Path, cleaned: Path, out_dir: Path, training: Run) -> Result:
    """Train a reward model from the model directory `instruct` on the ratings in `cleaned`.

    The figures are of texts that no training pair contains. Raises InputError when there are no ratings.
    """
    rows = {split: [row for row in read_table(cleaned, "ratings", split=split) if row["source"] in config.sources]
            for split in ("train", "validation", "test")}
    if len(rows["train"]) < config.batch_size or len(rows["test"]) < 2:
        raise InputError(f"reward.sources: {len(rows['train'])} rated texts to train on and {len(rows['test'])} to "
                         f"test on from {', '.join(config.sources)}; a batch needs {config.batch_size}")
    device = choose_device(training.device)
    torch.manual_seed(config.seed)
    model = RewardModel.from_language_model(load_model(instruct, device))
    tokenizer = load_tokenizer(instruct)
    objective = BradleyTerry(model, tokenizer, rows["train"], rows["validation"], config, device)
    trained = train(model, objective, config, training)
    save_reward_model(model, instruct, config.context_length, out_dir)
    save_curves(trained.curves, out_dir)
    figures = _test_figures(model, tokenizer, rows, config)
    training.reporter.note(f"pairs of unseen texts ordered right: {figures['accuracy_margin_1']:.1%}, TF-IDF ridge "
                           f"regression: {figures['baseline_accuracy_margin_1']:.1%}")
    return Result(trained.metrics | last_values(trained.curves, "validation_accuracy") | figures, trained.measurements)


def _test_figures(model: RewardModel, tokenizer: Any, rows: dict[str, Rows], config: RewardConfig
                  ) -> dict[str, float]:
    test = [row for row in rows["test"] if row["source"] == config.sources[0]]
    texts, ratings = [row["text"] for row in test], np.array([row["rating"] for row in test])
    scores = score_texts(model, tokenizer, texts, config.context_length).double().numpy()
    lengths = np.array([len(text) for text in texts])
    figures = {f"accuracy_margin_{gap}": pair_accuracy(scores, ratings, float(gap)) for gap in (1, 2)}
    baseline = tfidf_ridge_scores([row["text"] for row in rows["train"]],
                                  np.array([row["rating"] for row in rows["train"]]), texts)
    figures |= {f"baseline_accuracy_margin_{gap}": pair_accuracy(baseline, ratings, float(gap)) for gap in (1, 2)}
    return figures | {
        "calibration_error": calibration_error(scores, ratings, 1.0),
        "rating_correlation": float(np.corrcoef(scores, ratings)[0, 1]),
        "length_correlation": float(np.corrcoef(scores, lengths)[0, 1]),
        "rating_length_correlation": float(np.corrcoef(ratings, lengths)[0, 1]),
        "score_deviation": float(scores.std()), "test_texts": len(test)}
