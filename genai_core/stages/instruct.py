"""The stage instruct: the base model is fine-tuned on chats, with plain text between them."""

from pathlib import Path

from genai_core.config.tasks import Mixture
from genai_core.config.training import InstructConfig
from genai_core.context import Context, Result
from genai_core.data.instruction.fine_tuning import training_rows, validation_rows
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_device
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import train
from genai_core.training.objectives.assistant_tokens import AssistantTokens


def run(config: InstructConfig, *, base: Path, cleaned: Path, tokens: Path, mixture: Mixture, out_dir: Path,
        context: Context) -> Result:
    """Fine-tune the model directory `base` on chats from `cleaned` and text from `tokens`; write the new one to
    `out_dir`."""
    device, reporter = choose_device(context.device), context.reporter
    model = load_model(base, device)
    tokenizer = load_tokenizer(base)
    rows = training_rows(config, mixture, tokenizer, cleaned, tokens, reporter)
    validation = validation_rows(config, mixture, tokenizer, cleaned, reporter)
    filled = float((rows.segments > 0).mean())
    reporter.note(f"{len(rows.ids):,} rows, {filled:.1%} of their tokens used; {config.text_fraction:.0%} are plain "
                  "text")
    objective = AssistantTokens(model, rows, validation, config, device)
    trained = train(model, objective, config, context)
    save_model(model, base, out_dir)
    save_curves(trained.curves, out_dir)
    return Result(trained.metrics | last_values(trained.curves, "validation_loss")
                  | {"packed_rows": len(rows.ids), "packing_efficiency": filled,
                     "chats_cut": rows.chats_cut, "chats_left_out": rows.chats_left_out},
                  trained.measurements)
