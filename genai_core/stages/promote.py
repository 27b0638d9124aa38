"""The stage promote: whether a release may be put in service, by the gates of the preset.

The release that is in service is asked this run's questions again, so that the new one is held against it on the same
ones.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from genai_core.config.release import GATED_STAGES, MODELS, EvaluateConfig, PromoteConfig
from genai_core.config.tasks import Task
from genai_core.context import Context, Reporter, Result
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.evaluation.language_model import Evaluated, add_bits_per_byte, evaluate_language_model
from genai_core.evaluation.questions import HeldOutText, choose_questions, encoded_again, held_out_text
from genai_core.evaluation.release.gates import check_gates, figures_by_stage, judge
from genai_core.hardware import choose_device
from genai_core.inference.text import open_text_model


def run(config: PromoteConfig, *, evaluate: Path, quantize: Path, tokens: Path, cleaned: Path,
        questions: EvaluateConfig, tasks: dict[str, Task], out_dir: Path, context: Context, rlhf: Path | None = None,
        champion: Path | None = None, champion_base: Path | None = None) -> Result:
    """Write `gates.json` with the verdict of each gate, and `champion.json` with the figures of the release in service.

    `champion` is its quantized model and `champion_base` its base model; None where no release is in service yet.
    Raises InputError for a gate on a figure that does not exist.
    """
    stages = {"rlhf": rlhf, "quantize": quantize}
    figures = figures_by_stage(evaluate, {name: path for name, path in stages.items() if path})
    tables, outcomes = _read(evaluate / "evaluation.json"), _read(evaluate / "outcomes.json")
    absent = {*MODELS, *GATED_STAGES} - {figure.partition("/")[0] for figure in figures}
    check_gates(config, figures, absent)      # a gate that cannot be judged ends the stage before its long part
    if champion and champion_base:
        columns = _evaluate_champion(questions, tasks, champion, champion_base, tokens, cleaned, "instruct" in tables,
                                     context.device, context.reporter)
        tables |= {name: column.figures for name, column in columns.items()}
        outcomes |= {name: column.outcomes for name, column in columns.items()}
        kept = {name: asdict(replace(column, answers=[])) for name, column in columns.items()}
        text = json.dumps(kept) + "\n"
        (out_dir / "champion.json").write_text(text, encoding="utf-8")
    return judge(config, figures, tables, outcomes, out_dir, context.reporter, absent)


def _evaluate_champion(config: EvaluateConfig, tasks: dict[str, Task], quantized: Path, base: Path, tokens: Path,
                       cleaned: Path, chats: bool, device_name: str, reporter: Reporter) -> dict[str, Evaluated]:
    """Its eight-bit model, which serves, and the bits per byte of its base model."""
    device = choose_device(device_name)
    questions = choose_questions(config, tasks, cleaned)
    model = quantized / "int8"
    columns = {"champion": evaluate_language_model(config, "champion", model, _text(config, model, tokens, cleaned),
                                                   questions, chats=chats, device=device, reporter=reporter),
               "champion_base": Evaluated()}
    add_bits_per_byte(columns["champion_base"], config, open_text_model(base, device),
                      _text(config, base, tokens, cleaned))
    for name, column in columns.items():
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in column.figures.items()))
    return columns


def _text(config: EvaluateConfig, model: Path, tokens: Path, cleaned: Path) -> HeldOutText:
    """The held-out text in the tokens of a model, whose tokenizer may be another one than this run's."""
    if (model / "tokenizer.json").read_bytes() == (tokens / "tokenizer.json").read_bytes():
        return held_out_text(tokens)
    return encoded_again(tokens, cleaned, load_tokenizer(model), config.bits_per_byte_tokens)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
