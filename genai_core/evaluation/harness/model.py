"""Our model as the harness asks it: how likely texts are, and answers up to where a task stops them."""

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from genai_core.data.chat import (
    END_OF_TEXT,
    adopted_format,
    cleaned,
    document_start,
    end_ids,
    end_of,
    render_prompt,
    token_id,
)
from genai_core.data.tokens.batches import pad
from genai_core.evaluation.harness.tasks import answer_limits
from genai_core.evaluation.tasks import SLOTS, Subject
from genai_core.inference.generate import generate
from genai_core.inference.likelihood import BATCH
from genai_core.inference.precision import inference_precision

Scored = list[tuple[float, bool]]
"""Of each continuation its log-probability, and whether each of its tokens is the likeliest."""


def harness_model(subject: Subject) -> Any:
    """The model of a subject, with the interface of the harness."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Harnessed(TemplateLM):
        tokenizer_name = "genai"
        max_length = subject.model.context_length
        eot_token_id = token_id(subject.tokenizer, END_OF_TEXT)
        prefix_token_id = (document_start(subject.tokenizer) or [eot_token_id])[0]

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return _encoded(subject, string, add_special_tokens is not False)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return ""

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            adopted, messages = adopted_format(subject.tokenizer), cleaned(subject.tokenizer, chat_history)
            return str(adopted.render(messages, generate=True)) if adopted else render_prompt(messages)

        def _loglikelihood_tokens(self, requests: list[tuple[Any, list[int], list[int]]], **_: Any) -> Scored:
            return scored(subject, [(context, continuation) for _, context, continuation in requests])

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            found = []
            for request in requests:
                ids = self.tok_encode(request.args[0], add_special_tokens=False)
                windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
                found.append(sum(value for value, _ in scored(subject, list(map(make_disjoint_window, windows)))))
            return found

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return answers(subject, [request.args for request in requests])

    return Harnessed()


@torch.no_grad()
def scored(subject: Subject, pairs: list[tuple[list[int], list[int]]]) -> Scored:
    """How likely continuations are after their contexts, of which as much is read as fits."""
    device = next(subject.model.parameters()).device
    length, first = subject.model.context_length, document_start(subject.tokenizer)
    rows = [end_of(context + continuation, length, first) for context, continuation in pairs]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found: dict[int, tuple[float, bool]] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start:start + BATCH]
        ids, _ = (tensor.to(device) for tensor in pad([rows[place] for place in chosen], 0, "right"))
        with inference_precision(subject.model):
            hidden = subject.model.hidden(ids)
            for number, place in enumerate(chosen):
                end = len(rows[place]) - 1
                begin = max(0, end - len(pairs[place][1]))
                log_probs = F.log_softmax(subject.model.logits(hidden[number, begin:end]).float(), dim=-1)
                targets = ids[number, begin + 1:end + 1]
                value = log_probs.gather(-1, targets[:, None]).double().sum().item()
                found[place] = value, bool((log_probs.argmax(-1) == targets).all())
    return [found[place] for place in range(len(pairs))]


def answers(subject: Subject, requests: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The likeliest continuation of each context, up to the first of the texts at which its options stop it (`until`)
    or `max_gen_toks` tokens, of which half of the model's context is the most; many at a time."""
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    for place, (_, options) in enumerate(requests):
        groups[answer_limits(options)].append(place)
    found: dict[int, str] = {}
    for (tokens, stops), places in groups.items():
        texts = _continued(subject, [requests[place][0] for place in places],
                           min(tokens, subject.model.context_length // 2), stops)
        found.update(zip(places, texts, strict=True))
    return [found[place] for place in range(len(requests))]


def _continued(subject: Subject, contexts: list[str], tokens: int, stops: tuple[str, ...]) -> list[str]:
    """Texts of at most `tokens` tokens after contexts, each up to the first of `stops`."""
    room, first = subject.model.context_length - tokens, document_start(subject.tokenizer)
    prompts = [end_of(_encoded(subject, context), room, first) for context in contexts]
    ends = end_ids(subject.tokenizer) | _stopping_ids(subject.tokenizer, stops)
    with inference_precision(subject.model):
        made = generate(subject.model, prompts, tokens, ends, slots=SLOTS,
                        pad_id=token_id(subject.tokenizer, END_OF_TEXT))
    texts = subject.tokenizer.decode_batch(made.unpadded())
    for stop in stops:
        texts = [text.split(stop)[0] for text in texts]
    return texts


def _stopping_ids(tokenizer: Tokenizer, stops: tuple[str, ...]) -> set[int]:
    """Tokens with a whole stop in their text, of which an answer ends with the first: what follows is cut off anyway.
    A stop that takes several tokens ends nothing early."""
    if not stops:
        return set()
    ids = list(tokenizer.get_vocab().values())
    texts = tokenizer.decode_batch([[token] for token in ids])
    return {token for token, text in zip(ids, texts, strict=True) if any(stop in text for stop in stops)}


def _encoded(subject: Subject, text: str, whole: bool = True) -> list[int]:
    """Token ids of a text, a `whole` one from the start of a document on; of a chat the template writes that."""
    ids = list(subject.tokenizer.encode(text, add_special_tokens=False).ids)
    start = document_start(subject.tokenizer) if whole and not subject.chats else []
    return ids if ids[:len(start)] == start else start + ids
