"""Preferences as token ids: a prompt, the answer that people preferred, and the other."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from genai_core.config.release import Gold
from genai_core.context import Reporter
from genai_core.data.chat import Chat, encode_chat, fit_prompt
from genai_core.data.instruction.judgements import judgements

LEAST_PROMPT = 16
"""Tokens that a long answer leaves to its prompt."""


@dataclass(frozen=True)
class Answer:
    """What follows a prompt, as token ids."""

    ids: list[int]
    mask: list[bool]
    """True on what the assistant says."""

    def up_to(self, tokens: int) -> "Answer":
        return Answer(self.ids[:tokens], self.mask[:tokens])


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, as token ids."""

    prompt: list[int]
    chosen: Answer
    rejected: Answer


def encoded_preferences(cleaned: Path, split: str, sources: tuple[str, ...], gold: Gold, tokenizer: Tokenizer,
                        context: int, reporter: Reporter) -> list[Preference]:
    """The preferences of a split, but the share that is the gold reward's, each of at most `context` tokens.

    A long prompt loses its beginning and a long answer its end, which is told.
    """
    preferred = judgements(cleaned, split, sources, gold).preferred
    found, cut = [], 0
    for chosen, rejected in zip(preferred[::2], preferred[1::2], strict=True):
        assert not isinstance(chosen.subject, str) and not isinstance(rejected.subject, str)
        shared = _shared(chosen.subject, rejected.subject)
        answers = [_encoded(tokenizer, subject, shared) for subject in (chosen.subject, rejected.subject)]
        fitting = [answer.up_to(context - LEAST_PROMPT) for answer in answers]
        room = context - max(len(answer.ids) for answer in fitting)
        prompt, lost = fit_prompt(tokenizer, chosen.subject[:shared], room)
        cut += bool(lost) or fitting != answers
        found.append(Preference(prompt, *fitting))
    if cut:
        reporter.note(f"{split}: of {len(found):,} preferences {cut:,} lost a part to fit {context:,} tokens")
    return found


def _shared(chosen: Chat, rejected: Chat) -> int:
    """Number of messages that two conversations begin with together: all that the two answers are an answer to. The
    assistant says what comes next in both."""
    pairs = list(zip(chosen, rejected, strict=False))
    differ = next((place for place, (one, other) in enumerate(pairs) if one != other), len(pairs) - 1)
    return next(place for place in range(differ, -1, -1)
                if pairs[place][0]["role"] == pairs[place][1]["role"] == "assistant")


def _encoded(tokenizer: Tokenizer, subject: Chat, shared: int) -> Answer:
    """What follows the first `shared` messages and the start of the assistant's turn; up to its last end of turn.

    The whole is encoded, since what a template writes of an answer may depend on what comes before it.
    """
    ids, mask = encode_chat(tokenizer, subject)
    turns = [place for place, learned in enumerate(mask) if learned and not (place and mask[place - 1])]
    start = turns[-sum(message["role"] == "assistant" for message in subject[shared:])]
    end = len(mask) - mask[::-1].index(True)
    return Answer(ids[start:end], mask[start:end])
