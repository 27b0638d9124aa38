"""A person labels: which two answers come next, in which order, and what has been said already.

The order of two answers is random, but always the same for a labeller and a prompt; the seeds of sampling are the same
for every labeller, so that all judge the same answers. A session that ends anywhere goes on with the first prompt that
the labeller has not judged: nothing is kept but the labels.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from genai_core.data.chat import Chat
from genai_core.errors import InputError
from genai_core.labelling.labels import Candidate, Choice, Label, LabelFiles, Split, now, prompt_key


@dataclass(frozen=True)
class Contestant:
    """A model whose answers are judged."""

    version: str
    answer: Callable[[Chat, int], Iterable[str]]
    """Prompt and seed to the pieces of the answer, as they are written."""


@dataclass(frozen=True)
class Question:
    """Two answers to a prompt, in the order in which they are shown."""

    prompt: Chat
    first: Candidate
    second: Candidate
    split: Split | None = None
    """Split of the data that the prompt belongs to, where it is of one."""


class Session:
    """The questions of one labeller, at most so many. The next pair of answers is made while a person reads this one.
    """

    def __init__(self, prompts: list[Chat], contestants: tuple[Contestant, Contestant], files: LabelFiles,
                 labeller: str, seed: int = 0, most: int = 10**9, split: Split | None = None):
        self.contestants = sorted(contestants, key=lambda each: each.version)      # named in any order, the same seeds
        self.files = files
        self.labeller = labeller
        self.seed = seed
        self.split = split
        self.left = most
        """Labels that may still be given."""
        self.passed_over = 0
        """Prompts that both answered alike, or one with nothing, from which nothing is learned."""
        self.unanswered = 0
        """Prompts that a model cannot be asked, such as a conversation that its chat template refuses."""
        self.why_unanswered = ""
        """The reason of the first of them."""
        self.versions = tuple(sorted(each.version for each in contestants))
        judged = {label.question for label in files.labels(labeller)}
        unique = list({prompt_key(prompt): prompt for prompt in prompts}.values())
        self.pending = [prompt for prompt in unique if (prompt_key(prompt), self.versions) not in judged]
        self.judged_before = len(unique) - len(self.pending)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._made: dict[str, Future[Question]] = {}
        self._closed = Event()

    @property
    def to_go(self) -> int:
        """Questions that are still to be asked, but for those that will be passed over."""
        return min(self.left, len(self.pending))

    def next(self) -> Question | None:
        """What to ask now; None when nothing is left. Equal answers and empty ones are passed over and counted, and so
        are prompts that a model cannot be asked. Raises whatever else a model raises, and CancelledError where the
        session is left meanwhile."""
        while self.to_go:
            for prompt in self.pending[:2]:
                if (key := prompt_key(prompt)) not in self._made:
                    self._made[key] = self._begin(prompt)
            key = prompt_key(self.pending[0])
            try:
                question = self._made[key].result()
            except InputError as reason:
                self.unanswered += 1
                self.why_unanswered = self.why_unanswered or str(reason)
                self.pending.pop(0)
                continue
            except Exception:
                self._made.pop(key)      # another attempt may succeed
                raise
            if question.first.text != question.second.text and question.first.text and question.second.text:
                return question
            self.passed_over += 1
            self.pending.pop(0)
        return None

    def _begin(self, prompt: Chat) -> "Future[Question]":
        try:
            return self._writer.submit(self._answered, prompt)
        except RuntimeError:      # the session was left meanwhile
            raise CancelledError from None

    def judge(self, question: Question, verdict: Choice) -> Label | None:
        """Keep a verdict; None, and nothing kept, where the labeller has judged the question in another session
        meanwhile. Raises as `LabelFiles.add` does."""
        label = Label(question.prompt, question.first, question.second, verdict, self.labeller, now(),
                      question.split)
        added = self.files.add_once(label)
        self.left -= added
        self._forget(question.prompt)
        return label if added else None

    def undo(self) -> Label | None:
        """Take the labeller's newest label of these two versions back, also one of an earlier session, and ask about it
        again; None where there is none."""
        label = self.files.undo(self.labeller, self.versions)
        if label is None:
            return None
        self.left += 1
        self._forget(label.prompt)      # another session may have judged what is still to be asked here
        self.pending.insert(0, label.prompt)
        done: Future[Question] = Future()
        done.set_result(Question(label.prompt, label.first, label.second, label.split))
        self._made[prompt_key(label.prompt)] = done
        return label

    def _forget(self, prompt: Chat) -> None:
        key = prompt_key(prompt)
        self.pending = [each for each in self.pending if prompt_key(each) != key]
        self._made.pop(key, None)

    def close(self) -> None:
        """End, and let an answer that nobody will read end at its next piece: the interpreter waits for it."""
        self._closed.set()
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _answered(self, prompt: Chat) -> Question:
        answers = []
        for number, each in enumerate(self.contestants):
            seed = self._drawn(prompt, f"answer {number}")
            text = "".join(self._while_open(each.answer(prompt, seed)))
            answers.append(Candidate(text.strip(), each.version, seed))
        swapped = self._drawn(prompt, f"order for {self.labeller}") % 2
        first, second = reversed(answers) if swapped else answers
        return Question(prompt, first, second, self.split)

    def _while_open(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            if self._closed.is_set():
                raise CancelledError
            yield piece

    def _drawn(self, prompt: Chat, what: str) -> int:
        """A random number from 0 to 2**31 - 1 that is always the same."""
        text = f"{self.seed}\n{what}\n{prompt_key(prompt)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31
