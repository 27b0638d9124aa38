"""What is kept of a question that a model was asked: its words, what was expected and answered, and which one it is."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

from genai_core.data.instruction.examples import Example

Sample = dict[str, str]
"""Task, id of the question, the last message that was asked, what was expected, and what was answered."""


def samples_of(tasks: Iterable[str], examples: list[Example], expected: Iterable[str], answers: Iterable[str]
               ) -> list[Sample]:
    """A sample of each example, with the name of its task."""
    named = list(tasks)
    # many conversations end with the same words, so all of each counts
    wholes = [json.dumps([example.asked, example.answers, example.choices], sort_keys=True) for example in examples]
    return [{"task": task, "question": question, "asked": example.asked[-1]["content"], "expected": right,
             "answered": answer}
            for task, question, example, right, answer
            in zip(named, question_ids(named, wholes), examples, expected, answers, strict=True)]


def question_ids(tasks: Sequence[str], wholes: Iterable[str]) -> list[str]:
    """Ids that tell the questions of a task apart, and are the same in another evaluation of the same question: digests
    of all that makes it, and where it is asked again its number behind."""
    asked: Counter[tuple[str, str]] = Counter()
    ids = []
    for task, whole in zip(tasks, wholes, strict=True):
        digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
        asked[task, digest] += 1
        ids.append(digest if asked[task, digest] == 1 else f"{digest}-{asked[task, digest]}")
    return ids
