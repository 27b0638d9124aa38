"""The stage instruct: the base model is fine-tuned on chats, with plain text between them."""

from pathlib import Path

from genai_core.config.tasks import Mixture
from genai_core.config.training import InstructConfig
from genai_core.context import Context, Result
from genai_core.data.instruction.fine_tuning import training_rows, validation_rows
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.export.adapter import FOLDER, save_adapter
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_device
from genai_core.models.adapters import add_adapters, merge, trained_parameters, whole_on
from genai_core.models.contexts import require_context
from genai_core.training.loop import train
from genai_core.training.objectives.assistant_tokens import AssistantTokens


def run(config: InstructConfig, *, base: Path, cleaned: Path, tokens: Path, mixture: Mixture, out_dir: Path,
        context: Context) -> Result:
    """Fine-tune the model directory `base` on chats from `cleaned` and text from `tokens`; write the new one to
    `out_dir`, and where adapters were trained, these beside it."""
    device, reporter = choose_device(context.device), context.reporter
    model = load_model(base, whole_on(config.lora, device))
    require_context("instruct", config, model.context_length)
    if config.lora:
        add_adapters(model, config.lora, config.seed)
        model.to(device)
    trainable = trained_parameters(model)
    tokenizer = load_tokenizer(base)
    rows = training_rows(config, mixture, tokenizer, cleaned, tokens, reporter)
    validation = validation_rows(config, mixture, tokenizer, cleaned, reporter)
    filled = float((rows.segments > 0).mean())
    reporter.note(f"{len(rows.ids):,} rows, {filled:.1%} of their tokens used")
    objective = AssistantTokens(model, rows, validation, config, device)
    trained = train(model, objective, config, context)
    if config.lora:
        save_adapter(model, out_dir / FOLDER)
        merge(model.to(whole_on(config.lora, device)))
    save_model(model, base, out_dir)
    return trained.outcome(model, out_dir, "validation_loss", figures={
        "trainable_parameters": trainable, "packed_rows": len(rows.ids), "packing_efficiency": filled,
        "chats_cut": rows.chats_cut, "chats_left_out": rows.chats_left_out})
