"""Figures of a task: the likeliest of any labels, bits of the answers by their bytes, and every right answer counts."""

import math

import pytest
import torch

from genai_core.config.tasks import Task
from genai_core.data.chat import TURN_END, render_prompt
from genai_core.data.instruction.examples import Example, plain_question, user_asks
from genai_core.evaluation.tasks import AskedTask, Subject, ask, chrf, exact_match, same_number

SHORT, LONG = "A good film.", "A good film. " * 60
LABELS = ("good", "very bad indeed", "so-so, as such films are")


def asked(name: str, answers: dict[str, str], labels: tuple[str, ...] = (), **fields) -> AskedTask:
    """A task whose questions are the keys of `answers`."""
    examples = [Example(user_asks(text), answer, (answer,), text) for text, answer in answers.items()]
    return AskedTask(name, Task(answer_tokens=8, **fields), examples, labels)


def log_prob(model, prompt: list[int], answer: list[int]) -> float:
    """Log-probability of an answer after its prompt, token by token."""
    log_probs = torch.log_softmax(model(torch.tensor([prompt + answer]))[0], dim=-1)
    return sum(log_probs[len(prompt) + number - 1, token].item() for number, token in enumerate(answer))


@pytest.fixture
def subject(tiny_model, tokenizer):
    return Subject(tiny_model, tokenizer, chats=True)


REVIEWS = {f"{'so ' * count}good a film as any": LABELS[count % 3] for count in range(12)}


def test_questions_asked_in_batches_are_questions_asked_one_by_one(subject):
    together = ask(subject, asked("sentiment", REVIEWS, LABELS, content="labelled"))["accuracy"]
    for number, (text, label) in enumerate(REVIEWS.items()):
        alone = ask(subject, asked("sentiment", {text: label}, LABELS, content="labelled"))["accuracy"]
        assert alone.outcomes[0][0] == together.outcomes[0][number]
        assert alone.samples[0] == together.samples[number]


@pytest.mark.parametrize("chats", [True, False])
def test_the_answer_to_a_labelled_text_is_the_likeliest_label_by_all_of_its_tokens(tiny_model, tokenizer, chats):
    """Three labels of one to seven tokens; in a chat the end of the turn belongs to each."""
    task = asked("sentiment", REVIEWS, LABELS, content="labelled")
    end = [tokenizer.token_to_id(TURN_END)] if chats else []
    result = ask(Subject(tiny_model, tokenizer, chats), task)["accuracy"]
    right = 0
    for example, sample in zip(task.examples, result.samples, strict=True):
        text = render_prompt(example.asked) if chats else plain_question(task.task, example)
        prompt = tokenizer.encode(text, add_special_tokens=False).ids
        answers = [tokenizer.encode(label if chats else f" {label}", add_special_tokens=False).ids + end
                   for label in LABELS]
        assert len({len(answer) for answer in answers}) == 3
        likeliest = max(range(3), key=lambda number: log_prob(tiny_model, prompt, answers[number]))
        assert sample["answered"] == LABELS[likeliest]
        right += sample["answered"] == example.answer
    assert result.figure == pytest.approx(right / 12)


def test_a_template_of_the_answer_words_the_labels_too(subject):
    """What the user reads and what the model is asked for are the same words, so that an answer can be right."""
    task = Task(content="labelled", answer="It is {label}.")
    examples = [Example(user_asks(text), f"It is {label}.", (f"It is {label}.",), text)
                for text, label in REVIEWS.items()]
    result = ask(subject, AskedTask("sentiment", task, examples, LABELS))["accuracy"]
    assert {sample["answered"] for sample in result.samples} <= {f"It is {label}." for label in LABELS}
    assert result.figure > 0 and sum(result.outcomes[0]) == result.figure * 12


@pytest.mark.parametrize("chats", [True, False])
def test_bits_per_byte_are_of_the_answers_alone_by_their_utf8_bytes(tiny_model, tokenizer, chats):
    answers = {"How are you?": "Très bien, 你好!", "Why?": "It is so."}
    task = asked("dialogue", answers, content="chats", metrics=("bits_per_byte",))
    result = ask(Subject(tiny_model, tokenizer, chats), task)["bits_per_byte"]
    bits = 0.0
    for example in task.examples:
        text = render_prompt(example.asked) if chats else plain_question(task.task, example)
        prompt = tokenizer.encode(text, add_special_tokens=False).ids
        answer = tokenizer.encode(example.answer if chats else f" {example.answer}", add_special_tokens=False).ids
        bits -= log_prob(tiny_model, prompt, answer) / math.log(2)
    size = sum(len(answer.encode()) for answer in answers.values())
    assert result.figure == pytest.approx(bits / size, rel=1e-4)
    assert result.outcomes[1] == [len(answer.encode()) for answer in answers.values()]


def test_prompts_that_do_not_fit_are_cut_and_counted(tiny_model, tokenizer):
    for task, cut in ((asked("sentiment", {SHORT: "a", LONG: "b", "So": "a"}, ("a", "b"), content="labelled"), 1),
                      (asked("translation", {SHORT: "x", LONG: "x"}, content="pairs"), 1),
                      (asked("title", {LONG: "x"}, content="pairs"), 1),
                      (asked("trivia", {LONG: "x", f"Now: {LONG}": "x"}, content="problems"), 2)):
        subject = Subject(tiny_model, tokenizer, chats=True)
        ask(subject, task)
        assert subject.cut_prompts == cut, task.name


def test_a_prompt_that_two_metrics_ask_is_cut_once(subject):
    ask(subject, asked("dialogue", {SHORT: "x", LONG: "x"}, content="chats", metrics=("bits_per_byte", "chrf")))
    assert subject.cut_prompts == 1


def examples(*answers: tuple[str, ...]) -> list[Example]:
    return [Example(user_asks("?"), known[0], known, "?") for known in answers]


def test_chrf_takes_the_best_of_several_references():
    assert chrf(["Hola a todos"], examples(("Adiós", "Hola a todos")))[0] == pytest.approx(100)
    assert chrf(["Hola", "Adiós"], examples(("Hola",), ("Hasta luego", "Adiós")))[0] == pytest.approx(100)
    assert chrf(["xyz"], examples(("Hola",)))[0] == 0


def test_an_answer_is_right_when_its_letters_and_digits_are_those_of_any_that_counts():
    known = examples(("42",), ("The Hague", "Den Haag"), ("yes",))
    figure, (outcomes, weights) = exact_match([" 42.", "den haag!", "yes, I think"], known)
    assert outcomes == [1, 1, 0] and weights == [1, 1, 1] and figure == pytest.approx(2 / 3)


def chooses(*problems: tuple[str, tuple[str, ...], str], **fields) -> AskedTask:
    """A task of questions, their choices and the right one of each."""
    examples = [Example(user_asks(text), right, (right,), text, choices=choices) for text, choices, right in problems]
    return AskedTask("exam", Task(content="problems", **fields), examples)


EXAM = (("The sky is", ("so-so, as such skies are", "blue", "a very bad film indeed"), "blue"),
        ("Two and two", ("make four", "are not five, as some would have it"), "make four"),
        ("Très bien?", ("你好", "Très bien, and so on", "no", "yes"), "no"))


@pytest.mark.parametrize("chats", [True, False])
def test_the_chosen_answer_has_the_highest_log_probability_by_its_bytes(tiny_model, tokenizer, chats):
    result = ask(Subject(tiny_model, tokenizer, chats), chooses(*EXAM))["multiple_choice"]
    right = []
    for (asked_text, choices, answer), sample in zip(EXAM, result.samples, strict=True):
        example = Example(user_asks(asked_text), answer, (answer,), asked_text)
        text = render_prompt(example.asked) if chats else plain_question(Task(content="problems"), example)
        prompt = tokenizer.encode(text, add_special_tokens=False).ids
        scores = [log_prob(tiny_model, prompt, tokenizer.encode(choice if chats else f" {choice}",
                                                                add_special_tokens=False).ids) / len(choice.encode())
                  for choice in choices]
        assert sample["answered"] == choices[scores.index(max(scores))]
        right.append(float(sample["answered"] == answer))
    assert result.outcomes == [right, [1.0] * 3] and result.figure == pytest.approx(sum(right) / 3)


def test_problems_in_batches_are_problems_one_by_one(subject):
    together = ask(subject, chooses(*EXAM))["multiple_choice"]
    for number, problem in enumerate(EXAM):
        assert ask(subject, chooses(problem))["multiple_choice"].samples[0] == together.samples[number]


def test_each_problem_is_judged_by_what_it_has(subject):
    """Where the task does not say: with choices by multiple choice, without by exact match."""
    mixed = chooses(*EXAM, ("1 + 1", (), "2"))
    by_default = ask(subject, mixed)
    assert {metric: len(result.outcomes[0]) for metric, result in by_default.items()} == {
        "multiple_choice": 3, "exact_match": 1}
    assert list(ask(subject, chooses(*EXAM))) == ["multiple_choice"]
    assert list(ask(subject, chooses(("1 + 1", (), "2")))) == ["exact_match"]
    both = ask(subject, chooses(*EXAM, metrics=("multiple_choice", "exact_match")))
    assert len(both["exact_match"].outcomes[0]) == 3


def test_choices_longer_than_the_context_are_cut(subject):
    long = "so " * 3 * subject.model.context_length
    result = ask(subject, chooses((LONG, (long + "a", "b"), "b")))["multiple_choice"]
    assert subject.cut_prompts == 1 and result.figure in (0, 1)


def test_a_number_is_right_when_it_is_equal_and_not_when_it_has_the_same_digits():
    figure, (outcomes, weights) = same_number(["-28", "28", "it is -28.0", ""], examples(*[("-28",)] * 4))
    assert outcomes == [1, 0, 1, 0] and weights == [1] * 4 and figure == 0.5
