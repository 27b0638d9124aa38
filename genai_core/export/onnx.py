"""A bidirectional encoder as ONNX, which runs without PyTorch."""

from pathlib import Path
from typing import Any

import torch

from genai_core.errors import InputError
from genai_core.models.kinds import open_model

EXAMPLE = (2, 8)
"""Texts and tokens of the input that is traced; both sizes are free in what is written."""


def write_onnx(directory: Path, path: Path) -> None:
    """Write the encoder of a directory: token ids (B, T) and attention mask (B, T), False on padding, to the logits.

    Raises InputError without the packages of the extra `onnx`.
    """
    try:
        import onnxscript  # noqa: F401, what torch.onnx needs
    except ImportError:
        raise InputError("writing ONNX needs further packages: pip install -c constraints.txt -e '.[onnx]'") from None
    model: Any = open_model(directory, torch.device("cpu")).model.eval()
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens", max=model.shape.text_tokens)
    program = torch.onnx.export(
        model, (torch.ones(EXAMPLE, dtype=torch.long), torch.ones(EXAMPLE, dtype=torch.bool)), dynamo=True,
        input_names=["ids", "attention_mask"], output_names=["logits"], verbose=False,
        dynamic_shapes={"ids": {0: texts, 1: tokens}, "attention_mask": {0: texts, 1: tokens}})
    assert program is not None
    program.save(path)
