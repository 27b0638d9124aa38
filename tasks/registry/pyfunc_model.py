"""The code that MLflow stores with each model: it loads the model directory and answers.

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
        directory = Path(context.artifacts["model"])
        self.reward = self.family = None
        if (directory / "int8").is_dir():
            directory = directory / "int8"
        if '"model_type": "genai-' in (directory / "config.json").read_text(encoding="utf-8"):
            self.family = directory
        elif "SequenceClassification" in (directory / "config.json").read_text(encoding="utf-8"):
            import torch

            from genai_core.models.reward import load_judge

            self.reward = load_judge(directory, torch.device("cpu"))
        else:
            from genai_core.inference.chat import ChatModel

            self.chat = ChatModel(directory)

    def predict(self, context, model_input, params=None):       # type hints would make MLflow ignore `params`
        """One answer, or one reward, for each text; a text that is a JSON list of messages is a conversation."""
        asked = model_input.iloc[:, 0].tolist() if hasattr(model_input, "iloc") else list(model_input)
        if self.reward:
            return self.reward.score([str(text) for text in asked]).tolist()
        from genai_core.inference.generate import Sampling

        wanted = params or {}
        sampling = Sampling(temperature=float(wanted.get("temperature", 0.0)))
        if self.family:
            longest = int(wanted.get("max_new_tokens", 64))
            return [_of_family(self.family, str(item), longest, sampling) for item in asked]
        answers = []
        for item in asked:
            pieces = self.chat.answer(_messages(item), int(wanted.get("max_new_tokens", 64)), sampling)
            answers.append("".join(pieces))
        return answers


def _of_family(directory, text, max_new_tokens, sampling):
    import torch

    from genai_core.families.images.generation import is_image_model, make_images
    from genai_core.inference.text import respond
    from genai_core.pictures import grid_as_base64

    device = torch.device("cpu")
    if is_image_model(directory):
        label = int(text) if text.strip().isdigit() else None
        return grid_as_base64(make_images(directory, 1, label, 0, device))
    return "".join(respond(directory, text, max_new_tokens, sampling, 0, device))


def _messages(item):
    """A question, a list of messages, or such a list as JSON: the signature that a server checks knows only text."""
    if isinstance(item, str) and item.lstrip().startswith("[{"):
        item = json.loads(item)
    return [{"role": "user", "content": item}] if isinstance(item, str) else list(item)


mlflow.models.set_model(GenaiModel())
