"""The stage reward: a scalar head on the instruct model learns to order texts as human raters do."""

from pathlib import Path

import torch

from genai_core.config.training import RewardConfig
from genai_core.context import Context, Result
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.preferences import rated_texts, rating_figures
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
    train_rows, held_out = (rated_texts(cleaned, split, config.sources) for split in ("train", "validation"))
    measured = rated_texts(cleaned, "validation", config.sources[:1])
    if len(train_rows) < config.batch_size or len(measured) < 2:
        raise InputError(f"reward.sources: {len(train_rows)} rated texts to train on from {', '.join(config.sources)}, "
                         f"of which a batch needs {config.batch_size}, and {len(measured)} to measure on from "
                         f"{config.sources[0]}, of which two are needed")
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    model = RewardModel.from_language_model(load_model(instruct, device))
    tokenizer = load_tokenizer(instruct)
    objective = BradleyTerry(model, tokenizer, train_rows, held_out, config, device)
    trained = train(model, objective, config, context)
    save_reward_model(model, instruct, config.context_length, out_dir)
    save_curves(trained.curves, out_dir)
    scores = score_texts(model, tokenizer, [row["text"] for row in measured], config.context_length)
    figures = rating_figures(scores.double().numpy(), measured, train_rows)
    context.reporter.note(f"pairs of unseen texts ordered right: {figures['accuracy_margin_1']:.1%}, TF-IDF ridge "
                           f"regression: {figures['baseline_accuracy_margin_1']:.1%}")
    return Result(trained.metrics | last_values(trained.curves, "validation_accuracy") | figures, trained.measurements)
