"""The code that MLflow stores with each model: it opens the model directory and answers.

Logged from this file as it is ("models from code"): nothing is pickled.
"""

import json
from pathlib import Path

import mlflow
from mlflow.pyfunc import PythonModel


class GenaiModel(PythonModel):
    """A language model answers questions or whole conversations, a reward model scores texts; a model of another family
    continues, translates or labels a text, or draws the digit that the text names, as a PNG in base64."""

    def load_context(self, context):
        import torch

        from genai_core.models.kinds import open_model

        self.opened = open_model(Path(context.artifacts["model"]), torch.device("cpu"))

    def predict(self, context, model_input, params=None):       # type hints would make MLflow ignore `params`
        """One answer, or one reward, for each text; a text that is a JSON list of messages is a conversation."""
        items = model_input.iloc[:, 0].tolist() if hasattr(model_input, "iloc") else list(model_input)
        if self.opened.produces == "scores":
            return self.opened.score([str(text) for text in items]).tolist()
        if self.opened.produces == "images":
            return [_drawn(self.opened, str(item)) for item in items]
        from genai_core.inference.sampling import Sampling

        wanted = params or {}
        longest, sampling = int(wanted.get("max_new_tokens", 64)), Sampling(float(wanted.get("temperature", 0.0)))
        if self.opened.produces == "chat":
            return ["".join(self.opened.chat(_messages(item), longest, sampling)) for item in items]
        return ["".join(self.opened.complete(str(item), longest, sampling, 0)) for item in items]


def _drawn(opened, text):
    from genai_core.pictures import grid_as_base64

    label = int(text) if text.strip().isdigit() else None
    return grid_as_base64(opened.make_images(1, label, 0))


def _messages(item):
    """A question, a list of messages, or such a list as JSON: the signature that a server checks knows only text."""
    if isinstance(item, str) and item.lstrip().startswith("[{"):
        item = json.loads(item)
    return [{"role": "user", "content": item}] if isinstance(item, str) else list(item)


mlflow.models.set_model(GenaiModel())
