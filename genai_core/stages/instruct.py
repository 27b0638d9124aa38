"""The stage instruct: the base model is fine-tuned on chats."""

from pathlib import Path

from genai_core.config.training import InstructConfig
from genai_core.context import Context, Result
from genai_core.data.chat import END_OF_TEXT, encode_chat, token_id
from genai_core.data.instructions import build_mixture
from genai_core.data.packing import PackedRows, pack
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import InputError
from genai_core.export.model_directory import load_model, save_model
from genai_core.hardware import choose_device
from genai_core.training.curves import last_values, save_curves
from genai_core.training.loop import train
from genai_core.training.objectives.assistant_tokens import AssistantTokens


def run(config: InstructConfig, *, base: Path, cleaned: Path, opening_words: int, out_dir: Path,
        context: Context) -> Result:
    """Fine-tune the model directory `base` on the mixture from `cleaned`; write the new one to `out_dir`."""
    device = choose_device(context.device)
    model = load_model(base, device)
    tokenizer = load_tokenizer(base)
    pad_id = token_id(tokenizer, END_OF_TEXT)

    def rows(split: str) -> PackedRows:
        chats = build_mixture(cleaned, config, opening_words, split)
        if split != "train":
            chats = chats[:1000]
        packed = pack([encode_chat(tokenizer, chat) for chat in chats], config.context_length, pad_id)
        if split == "train" and not len(packed.ids):
            raise InputError(f"instruct.context_length: none of {len(chats):,} chats has an answer within "
                             f"{config.context_length} tokens of its end; lengthen the context or shorten the chats")
        if packed.chats_cut or packed.chats_left_out:
            context.reporter.note(f"{split}: of {len(chats):,} chats {packed.chats_cut:,} lost their beginning to fit "
                                  f"{config.context_length} tokens, and {packed.chats_left_out:,} are left out, since "
                                  "nothing of an answer fits")
        return packed

    train_rows, validation_rows = rows("train"), rows("validation")
    filled = float((train_rows.segments > 0).mean())
    context.reporter.note(f"{len(train_rows.ids):,} packed rows, {filled:.1%} of their tokens used")
    objective = AssistantTokens(model, train_rows, validation_rows, config, device)
    trained = train(model, objective, config, context)
    save_model(model, base, out_dir)
    save_curves(trained.curves, out_dir)
    return Result(trained.metrics | last_values(trained.curves, "validation_loss")
                  | {"packed_rows": len(train_rows.ids), "packing_efficiency": filled,
                     "chats_cut": train_rows.chats_cut, "chats_left_out": train_rows.chats_left_out},
                  trained.measurements)
