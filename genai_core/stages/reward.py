"""The stage reward: a scalar head on the instruct model learns to order texts and answers as people did."""

from pathlib import Path

import torch

from genai_core.config.release import Gold
from genai_core.config.training import RewardConfig
from genai_core.context import Context, Result
from genai_core.data.instruction.judgements import judgements
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.preferences import judgement_figures
from genai_core.export.model_directory import load_model
from genai_core.hardware import choose_device
from genai_core.inference.reward import save_reward_model
from genai_core.models.reward import RewardModel, score_subjects
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import train
from genai_core.training.objectives.bradley_terry import BradleyTerry


def run(config: RewardConfig, *, instruct: Path, cleaned: Path, gold: Gold, out_dir: Path, context: Context) -> Result:
    """Train a reward model from the model directory `instruct` on the ratings and preferences in `cleaned`.

    A share is left to the gold reward. The figures are of judgements that no training pair contains. Raises InputError
    when there are too few.
    """
    known = judgements(cleaned, "train", config.sources, gold)
    held_out = judgements(cleaned, "validation", config.sources, gold)
    pairs = known.in_pairs(config.seed)
    if len(pairs) < 2 or len(held_out.all) < 2:
        raise InputError(f"reward.sources: {len(known.all)} judgements to train on from "
                         f"{', '.join(config.sources) or 'all sources'} and {len(held_out.all)} to measure on; two "
                         "of each are needed")
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    model = RewardModel.from_language_model(load_model(instruct, device))
    tokenizer = load_tokenizer(instruct)
    objective = BradleyTerry(model, tokenizer, pairs, held_out.all, config, device)
    trained = train(model, objective, config, context)
    save_reward_model(model, instruct, config.context_length, out_dir)
    save_curves(trained.curves, out_dir)
    scores = score_subjects(model, tokenizer, [each.subject for each in held_out.all], config.context_length)
    figures = judgement_figures(scores.double().numpy(), held_out, known, config.min_rating_gap)
    for source in held_out.sources:
        of_source = [figures.get(f"{source}/{name}", float("nan")) for name in ("accuracy", "baseline_accuracy")]
        context.reporter.note(f"{source}: {of_source[0]:.1%} of unseen pairs ordered right, TF-IDF {of_source[1]:.1%}")
    return Result(trained.metrics | last_values(trained.curves, "validation_accuracy") | figures, trained.measurements)
