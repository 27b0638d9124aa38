"""The stage reward: a scalar head on the instruct model learns to order texts and answers as people did."""

from pathlib import Path

import torch

from genai_core.config.release import Gold
from genai_core.config.training import RewardConfig
from genai_core.context import Context, Reporter, Result
from genai_core.data.instruction.judgements import Judgements, judgements
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.evaluation.preferences import judgement_figures
from genai_core.export.adapter import FOLDER, save_adapter
from genai_core.export.model_directory import load_config, load_model
from genai_core.hardware import choose_device
from genai_core.inference.reward import save_reward_model
from genai_core.models.adapters import add_adapters, merge, whole_on
from genai_core.models.contexts import require_context
from genai_core.models.reward import SCORE, RewardModel, score_subjects
from genai_core.training.loop import train
from genai_core.training.objectives.bradley_terry import BradleyTerry
from genai_core.training.objectives.rating_regression import RatingRegression


def run(config: RewardConfig, *, instruct: Path, cleaned: Path, gold: Gold, out_dir: Path, context: Context) -> Result:
    """Train a reward model from the model directory `instruct` on the ratings and preferences in `cleaned`.

    A share is left to the gold reward. The figures are of judgements that no training pair contains. Raises InputError
    when there are too few, or no two that differ by enough.
    """
    require_context("reward", config, load_config(instruct).max_position_embeddings)
    known = judgements(cleaned, "train", config.sources, gold)
    held_out = judgements(cleaned, "validation", config.sources, gold)
    pairs = known.in_pairs(config.seed)
    if len(pairs) < 2 or len(held_out.all) < 2:
        raise InputError(f"reward.sources: {len(known.all)} judgements to train on from "
                         f"{', '.join(config.sources) or 'all sources'} and {len(held_out.all)} to measure on; two "
                         "of each are needed")
    if config.objective == "bradley_terry":
        _require_pairs(known, config, context.reporter)
    device = choose_device(context.device)
    torch.manual_seed(config.seed)
    model = RewardModel.from_language_model(load_model(instruct, whole_on(config.lora, device)))
    if config.lora:
        add_adapters(model, config.lora, config.seed, whole=(SCORE,))
        model.to(device)
    tokenizer = load_tokenizer(instruct)
    learn = RatingRegression if config.objective == "regression" else BradleyTerry
    objective = learn(model, tokenizer, pairs, held_out.all, config, device)
    trained = train(model, objective, config, context)
    scores = score_subjects(model, tokenizer, [each.subject for each in held_out.all], config.context_length)
    if config.lora:
        save_adapter(model, out_dir / FOLDER, whole=(SCORE,), task="SEQ_CLS")
        merge(model.to(whole_on(config.lora, device)))
    save_reward_model(model, instruct, config.context_length, out_dir)
    figures = judgement_figures(scores.double().numpy(), held_out, known, config.min_rating_gap)
    for source in held_out.sources:
        of_source = [figures.get(f"{source}/{name}", float("nan")) for name in ("accuracy", "baseline_accuracy")]
        context.reporter.note(f"{source}: {of_source[0]:.1%} of unseen pairs ordered right, TF-IDF {of_source[1]:.1%}")
    return trained.outcome(model, out_dir, "validation_accuracy", figures=figures)


def _require_pairs(known: Judgements, config: RewardConfig, reporter: Reporter) -> None:
    """Tell how many pairs each source has. Raises InputError where there are none at all."""
    counts = {source: known.pairs_of(source, config.min_rating_gap) for source in known.sources}
    reporter.note("pairs to train on: " + ", ".join(f"{count:,} of {source}" for source, count in counts.items()))
    if not any(counts.values()):
        raise InputError(f"reward.min_rating_gap: no two ratings of a source differ by {config.min_rating_gap:g}, so "
                         "there is no pair to train on; lower it")
