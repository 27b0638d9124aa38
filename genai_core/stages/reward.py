"""The stage reward: a scalar head on the instruct model learns to order texts as human raters do."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from genai_core.config.training import RewardConfig
from genai_core.context import Context, Result
from genai_core.data.tables import Rows, read_table
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.preferences import calibration_error, pair_accuracy, tfidf_ridge_scores
from genai_core.export.model_directory import load_model
from genai_core.hardware import choose_device
from genai_core.inference.reward import save_reward_model
from genai_core.models.reward import RewardModel, score_texts
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import train
from genai_core.training.objectives.bradley_terry import BradleyTerry


def run(config: RewardConfig, *, instruct: Path, cleaned: Path, out_dir: Path, context: Context) -> Result:
    """Train a reward model from the model directory `instruct` on the ratings in `cleaned`.

    The figures are of texts that no training pair contains. Raises InputError when there are no ratings.
    """
    rows = {split: [row for row in read_table(cleaned, "ratings", split=split) if row["source"] in config.sources]
            for split in ("train", "validation", "test")}
    if len(rows["train"]) < config.batch_size or len(rows["test"]) < 2:
        raise InputError(f"reward.sources: {len(rows['train'])} rated texts to train on and {len(rows['test'])} to "
                         f"test on from {', '.join(config.sources)}; a batch needs {config.batch_size}")
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    model = RewardModel.from_language_model(load_model(instruct, device))
    tokenizer = load_tokenizer(instruct)
    objective = BradleyTerry(model, tokenizer, rows["train"], rows["validation"], config, device)
    trained = train(model, objective, config, context)
    save_reward_model(model, instruct, config.context_length, out_dir)
    save_curves(trained.curves, out_dir)
    figures = _test_figures(model, tokenizer, rows, config)
    context.reporter.note(f"pairs of unseen texts ordered right: {figures['accuracy_margin_1']:.1%}, TF-IDF ridge "
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
