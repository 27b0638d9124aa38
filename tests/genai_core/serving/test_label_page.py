"""Labelling on the page in a real browser: the same answers for everybody, written ahead, and undone without loss.

The models are functions of the test; what is kept goes through the server's own code.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from genai_core.labelling.files import read_rows
from genai_core.labelling.labels import Candidate, Label, LabelFiles, now
from genai_core.serving.front import page as front
from genai_core.serving.front.feedback import judged_by, respond

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.browser]

ADDRESS = "http://genai.test/"
FILMS = [f"Tell me about film {number}" for number in range(40)]
CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Why?"}]


class Served:
    """The page and what it asks of a server."""

    def __init__(self, browser: Any, folder: Path, answer: Callable[[str, str, int], str]):
        self.folder = folder
        self.answer = answer
        self.asked: list[tuple[str, str, int]] = []
        """Prompt, model and seed of each answer."""
        self.is_slow: Callable[[str], bool] = lambda body: False
        """Whether a request with this body is answered by `release` alone."""
        self.held: list[Any] = []
        self.page = browser.new_page()
        self.page.set_default_timeout(20_000)
        self.page.route("**/*", self._respond)
        self.page.goto(ADDRESS)
        self.page.locator("#served", has_text="m/1").wait_for()
        self.page.get_by_role("tab", name="Label").click()

    def release(self, containing: str, respond: Callable[[Any], None] | None = None) -> None:
        """Answer the requests that are held and contain this text."""
        released = [route for route in self.held if containing in route.request.post_data]
        self.held = [route for route in self.held if route not in released]
        for route in released:
            (respond or self._answer)(route)

    def _respond(self, route: Any) -> None:
        if self.is_slow(route.request.post_data or ""):
            self.held.append(route)
        else:
            self._answer(route)

    def _answer(self, route: Any) -> None:
        request, address = route.request, urlparse(route.request.url)
        if address.path == "/":
            html, headers = front._page()
            route.fulfill(body=html, headers={**headers, "Content-Type": "text/html; charset=utf-8"})
        elif address.path == "/details":
            models = [{"name": f"model-{number}", "title": "", "version": f"m/{number}", "chats": True, "size": 0,
                       "figures": {}, "page": "", "lineage": False, "engine": "", "context": None}
                      for number in (1, 2, 3)]
            route.fulfill(json={"models": models, "feedback": str(self.folder)})
        elif address.path == "/feedback":
            labeller = parse_qs(address.query).get("labeller", [""])[0]
            route.fulfill(json=judged_by(self.folder, labeller) if request.method == "GET"
                          else respond(self.folder, request.post_data_buffer))
        else:
            body = json.loads(request.post_data)
            said = self.answer(body["messages"][-1]["content"], body["model"], body["seed"])
            self.asked.append((body["messages"][-1]["content"], body["model"], body["seed"]))
            piece = json.dumps({"choices": [{"delta": {"content": said}}]})
            route.fulfill(body=f"data: {piece}\n\ndata: [DONE]\n\n", content_type="text/event-stream")

    def start(self, labeller: str, prompts: list[str], one: str = "model-1", other: str = "model-2") -> None:
        self.page.get_by_label("Your name").fill(labeller)
        self.page.get_by_label("One model").select_option(one)
        self.page.get_by_label("The other").select_option(other)
        self.page.get_by_label("Prompts, one a line").fill("\n".join(prompts))
        self.page.get_by_role("button", name="Start").click()

    def shows(self, prompt: str) -> None:
        self.page.locator("#asked-label").get_by_text(prompt, exact=True).wait_for()
        self.page.locator("#question-label").wait_for()

    def says(self, text: str) -> None:
        self.page.locator("#left", has_text=text).wait_for()

    def happens(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.page.wait_for_timeout(20)


@pytest.fixture
def serve(browser, tmp_path):
    pages = []

    def opened(answer: Callable[[str, str, int], str] = lambda prompt, model, seed: f"{model} {seed}") -> Served:
        served = Served(browser, tmp_path / "feedback", answer)
        pages.append(served.page)
        return served

    yield opened
    for page in pages:
        page.close()


def judge_all(served: Served, prompts: list[str]) -> list[str]:
    """Ties for all; which text was shown first."""
    first = []
    for prompt in prompts:
        served.shows(prompt)
        first.append(served.page.locator("#first").inner_text())
        served.page.keyboard.press("t")
    served.says("Nothing is left to judge.")
    return first


def test_everybody_judges_the_same_answers_whichever_model_is_named_first_and_in_an_order_of_their_own(serve):
    ann, bob = serve(), serve()
    ann.start("ann", FILMS)
    bob.start("bob", FILMS, one="model-2", other="model-1")
    first = [judge_all(served, FILMS) for served in (ann, bob)]
    assert sorted(ann.asked) == sorted(bob.asked) and len(set(ann.asked)) == 2 * len(FILMS)
    shown = Counter(text.split()[0] for text in first[0])
    assert 10 < shown["model-1"] < 30, "which one is shown first is drawn"
    assert first[0] != first[1]


def test_two_samples_of_one_model_differ_and_the_next_answers_are_written_while_one_reads(serve):
    served = serve()
    served.start("ann", FILMS[:3], other="model-1")
    served.shows(FILMS[0])
    served.happens(lambda: len(served.asked) == 4)
    assert [prompt for prompt, *_ in served.asked] == [FILMS[0]] * 2 + [FILMS[1]] * 2
    assert len({seed for *_, seed in served.asked}) == 4
    judge_all(served, FILMS[:3])
    assert len(served.asked) == 6, "no answer is written twice"


def test_what_is_passed_over_is_counted(serve):
    served = serve(lambda prompt, model, seed: "Alike" if prompt in FILMS[:2] else f"{model} {seed}")
    served.start("ann", FILMS[:3])
    served.shows(FILMS[2])
    served.says("1 to go, 2 with equal or empty answers passed over")


def test_one_model_twice_without_chance_is_refused_before_a_prompt_is_lost(serve):
    served = serve()
    served.page.get_by_role("tab", name="Chat").click()
    served.page.get_by_label("Temperature").fill("0")
    served.page.get_by_role("tab", name="Label").click()
    served.start("ann", FILMS[:3], other="model-1")
    served.says("At temperature 0 a model always gives the same answer")
    assert served.asked == []


def test_undo_before_a_verdict_is_kept_loses_nothing(serve, tmp_path):
    served = serve()
    served.is_slow = lambda body: FILMS[1] in body or '"kind"' in body
    served.start("ann", FILMS[:3])
    served.shows(FILMS[0])
    served.happens(lambda: len(served.held) == 1)      # the next answer, which is being written
    served.page.keyboard.press("1")
    served.page.keyboard.press("u")
    served.happens(lambda: len(served.held) > 1)
    served.page.wait_for_timeout(200)
    served.release('"label"')
    served.page.wait_for_timeout(200)
    served.release('"undo"')
    served.page.wait_for_timeout(200)
    served.is_slow = lambda body: False
    served.release(FILMS[1])
    served.shows(FILMS[1])
    for _ in FILMS[1:3]:
        served.page.wait_for_timeout(200)
        served.page.keyboard.press("t")
    served.says("Nothing is left to judge.")
    labels = LabelFiles(tmp_path / "feedback").labels()
    assert [(label.prompt[0]["content"], label.verdict) for label in labels] == [
        (FILMS[0], "first"), (FILMS[1], "tie"), (FILMS[2], "tie")]


def test_a_verdict_that_was_not_kept_is_given_again_to_the_question_on_the_page(serve, tmp_path):
    served = serve()
    served.start("ann", FILMS[:2])
    served.shows(FILMS[0])
    served.page.keyboard.press("1")
    served.shows(FILMS[1])
    served.is_slow = lambda body: '"kind"' in body
    served.page.keyboard.press("1")
    served.page.keyboard.press("u")
    served.happens(lambda: len(served.held) > 0)
    served.page.wait_for_timeout(200)
    served.release('"undo"')
    served.page.wait_for_timeout(200)
    served.is_slow = lambda body: False
    served.release('"label"', lambda route: route.fulfill(status=507, json={"error": {"message": "no room"}}))
    served.page.locator("#kept", has_text="not kept: no room").wait_for()
    served.shows(FILMS[1])
    served.page.keyboard.press("2")
    served.says("Nothing is left to judge.")
    labels = LabelFiles(tmp_path / "feedback").labels()
    assert [(label.prompt[0]["content"], label.verdict) for label in labels] == [
        (FILMS[0], "first"), (FILMS[1], "second")]


def test_a_list_that_is_begun_before_a_verdict_is_kept_is_asked_whole(serve, tmp_path):
    served = serve()
    served.start("ann", FILMS[:1])
    served.shows(FILMS[0])
    served.is_slow = lambda body: '"kind"' in body
    served.page.keyboard.press("1")
    served.happens(lambda: len(served.held) == 1)
    served.start("ann", FILMS[1:3])
    served.page.wait_for_timeout(200)
    served.is_slow = lambda body: False
    served.release('"label"')
    served.page.locator("#kept", has_text="Kept: 1 line").wait_for()
    served.page.wait_for_timeout(200)
    assert served.page.locator("#asked-label").text_content() != FILMS[2], "the one before was never asked"
    served.start("ann", FILMS[1:3])
    judge_all(served, FILMS[1:3])
    assert sorted(label.prompt[0]["content"] for label in LabelFiles(tmp_path / "feedback").labels()) == FILMS[:3]


def test_what_was_judged_in_another_session_is_told_and_the_next_question_comes(serve, tmp_path):
    served, files = serve(), LabelFiles(tmp_path / "feedback")
    served.start("ann", FILMS[:2])
    served.shows(FILMS[0])
    answers = Candidate("A", "m/1"), Candidate("B", "m/2")
    files.add(Label([{"role": "user", "content": FILMS[0]}], *answers, "first", "ann", now()))
    served.page.keyboard.press("t")
    served.shows(FILMS[1])
    assert "judged in another session meanwhile" in served.page.locator("#kept").inner_text()
    assert [label.verdict for label in files.labels()] == ["first"]


def test_undo_takes_back_the_label_of_these_models_with_all_that_it_holds(serve, tmp_path):
    files = LabelFiles(tmp_path / "feedback")
    answers = [Candidate(text, f"m/{number}", 6 + number) for number, text in enumerate("ABC", start=1)]
    files.add(Label(CONVERSATION, answers[0], answers[1], "first", "ann", now(), "validation"))
    files.add(Label(CONVERSATION, answers[0], answers[2], "first", "ann", now()))
    served = serve()
    served.start("ann", FILMS[:2])
    served.shows(FILMS[0])
    served.page.keyboard.press("u")
    served.page.locator("#asked-label", has_text="system: Be brief.").wait_for()
    assert "assistant: Hello." in served.page.locator("#asked-label").inner_text()
    served.page.keyboard.press("2")
    served.shows(FILMS[0])
    other, again = read_rows(files.preferences)
    assert (other["rejected_model"], other["verdict"]) == ("m/3", "first"), "of another pair, and newer"
    assert (again["prompt"], again["split"], again["verdict"]) == (CONVERSATION, "validation", "second")
    assert (again["chosen_model"], again["chosen_seed"]) == ("m/2", 8)
    served.page.keyboard.press("u")
    served.page.locator("#asked-label", has_text="system: Be brief.").wait_for()
    served.page.keyboard.press("u")
    served.says("There is nothing to take back on these two.")
