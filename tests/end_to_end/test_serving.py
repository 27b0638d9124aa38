"""`genai serve` as a process: it follows the release under load, its page in a real browser, and how it ends."""

import json
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from genai_core.labelling.labels import LabelFiles
from genai_core.serving.front.feedback import respond
from tests.end_to_end.conftest import Home, api_of, copy_of
from tests.end_to_end.helpers import answers, free_port, processes_in, wait_for

pytestmark = pytest.mark.slow

SCREENSHOTS = os.environ.get("GENAI_SCREENSHOTS")
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


class Served:
    """`genai serve` in a workspace."""

    def __init__(self, home: Home, *arguments: str):
        self.home, port = home, free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.log = home.root / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(home.command("serve", "--port", str(port), *arguments), stdout=log,
                                            stderr=log, env=home.environment, stdin=subprocess.DEVNULL)
        wait_for(lambda: answers(f"{self.address}/health") or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.log.read_text()

    def chat(self, **asked) -> httpx.Response:
        return httpx.post(f"{self.address}/v1/chat/completions", json={**HELLO, **asked}, timeout=60)

    def version(self) -> str:
        return str(httpx.get(f"{self.address}/health").json()["version"])

    def children(self) -> list:
        return [process for process in processes_in(self.home.root)
                if "genai_core.serving" in " ".join(process.cmdline())]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def serving(home: Home, *arguments: str):
    served = Served(home, *arguments)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def home(finished, prefect, tmp_path_factory):
    return copy_of(finished, tmp_path_factory.mktemp("serving") / "home", PREFECT_API_URL=api_of(prefect))


def test_it_answers_for_every_model_of_the_release_and_leaves_no_process(home):
    with serving(home) as served:
        assert served.version() == "genai-quantize/1"
        for model in ("quantized", "genai-quantize", "models:/genai-quantize@champion", "rlhf", "instruct"):
            assert served.chat(model=model).status_code == 200
        assert served.chat(model="base").json()["error"]["code"] == "unsupported_value"
        assert httpx.post(f"{served.address}/v1/completions", json={"model": "base", "prompt": "The", "max_tokens": 8},
                          timeout=60).status_code == 200
        details = httpx.get(f"{served.address}/details").json()["models"]
        assert [model["aliases"][0] for model in details] == ["quantized", "rlhf", "instruct", "base"]
        assert all(model["size"] > 0 and model["figures"]["bits_per_byte"] > 0 for model in details)
        assert "genai-pretrain/1" in httpx.get(f"{served.address}/lineage/quantized").text
        assert len(served.children()) == 4
        assert served.stop() == 0
    assert "Traceback" not in served.log.read_text() and served.log.read_text().endswith("stopped\n")
    assert not processes_in(home.root)


def test_a_stop_lets_an_answer_end_and_a_kill_leaves_no_child(home):
    asked = {"model": "instruct", "prompt": "The", "max_tokens": 100, "stream": True,
             "logit_bias": {"0": -100, "2": -100}}
    with serving(home) as served:
        with httpx.stream("POST", f"{served.address}/v1/completions", json=asked, timeout=60) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            served.process.terminate()
            text += "".join(pieces)
        assert text.rstrip().endswith("data: [DONE]") and '"finish_reason":"length"' in text
        assert served.process.wait(60) == 0
    with serving(home) as served:
        assert served.children()
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        wait_for(lambda: not processes_in(home.root), 20)


@pytest.mark.parametrize(("arguments", "words"), [
    (("--host", "0.0.0.0"), "--host 0.0.0.0: others could ask this server, so it needs a key: set GENAI_API_KEY"),
    (("models:/genai-none@champion",), "models:/genai-none@champion: the registry has no such model"),
    (("no/such/model",), "no/such/model: there is no such model directory or GGUF file"),
    (("README.md",), "README.md: neither a model directory nor a GGUF file")])
def test_bad_input_is_one_line(home, arguments, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("# Not a model\n")
    done = home.genai("serve", "--port", str(free_port()), *arguments, fails=True)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("genai: ")]
    assert words in line and "Traceback" not in done.stderr
    assert not processes_in(home.root)


def test_a_release_that_comes_into_service_takes_over_without_a_lost_request(home):
    with serving(home) as served, ThreadPoolExecutor(8) as threads:
        stop, statuses, models = threading.Event(), Counter(), Counter()

        def keep_asking(number: int) -> None:
            while not stop.is_set():
                answer = served.chat(stream=number % 2 == 0)
                statuses[answer.status_code] += 1
                models[served.version()] += 1

        asking = [threads.submit(keep_asking, number) for number in range(8)]
        home.run("instruct.epochs=0.5")
        wait_for(lambda: served.version() == "genai-quantize/2", 30)
        home.genai("rollback")
        wait_for(lambda: served.version() == "genai-quantize/1", 30)
        home.genai("promote", [row["name"] for row in json.loads(home.genai("releases", "--json").stdout)][-1])
        wait_for(lambda: served.version() == "genai-quantize/2", 30)
        stop.set()
        for asker in asking:
            asker.result()
        assert set(statuses) == {200} and statuses[200] > 50, statuses
        assert set(models) == {"genai-quantize/1", "genai-quantize/2"}
        wait_for(lambda: len(served.children()) == 1, 60)      # the engine of the other release has ended
        assert "genai_model_moves_total 3.0" in httpx.get(f"{served.address}/metrics").text


# ---- the page

@pytest.fixture(scope="module")
def page_home(finished, tmp_path_factory):
    return copy_of(finished, tmp_path_factory.mktemp("page") / "home")


@pytest.fixture(scope="module")
def served(page_home):
    with serving(page_home) as served:
        yield served


@pytest.fixture
def page(browser, served):
    page = browser.new_page(viewport={"width": 1300, "height": 850})
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(served.address)
    page.locator("#served", has_text="genai-quantize/1").wait_for()
    yield page
    page.close()
    assert not problems, problems


def pictures(page, name: str) -> None:
    """Light and dark, wide and narrow."""
    if not SCREENSHOTS:
        return
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1300, 420):
            page.set_viewport_size({"width": width, "height": 850})
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{scheme}-{width}.png")
    page.set_viewport_size({"width": 1300, "height": 850})


def lines_of(home: Home, name: str) -> list[dict]:
    path = home.root / "feedback" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ask(page, text: str) -> None:
    """By keyboard alone; a small model may have nothing to say, so ask until it has."""
    page.get_by_label("Message").focus()
    for _ in range(10):
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        page.locator("#log[aria-busy=false]").wait_for()
        if page.locator(".turn:last-child .text").inner_text().strip() not in ("", "(an empty answer)"):
            return
    raise AssertionError("the model says nothing")


@pytest.mark.heavy
@pytest.mark.browser
def test_a_conversation_by_keyboard_with_thumbs_and_a_second_answer(page, page_home):
    page.get_by_label("Temperature").fill("1.5")
    ask(page, "Good morning")
    assert page.locator(".turn .text").first.inner_text() == "Good morning"
    assert re.search(r"\d+ tokens?, the first after [\d.]+ s", page.locator(".turn:last-child .under").inner_text())
    assert page.evaluate("document.activeElement.id") == "question"
    before = len(lines_of(page_home, "preferences.jsonl"))
    page.get_by_role("button", name="Not good").last.click()
    page.get_by_role("button", name="Answer again, and choose").click()
    better = page.get_by_role("button", name="This one is better")
    better.nth(1).wait_for()
    pictures(page, "serve-chat")
    better.nth(1).click()
    page.locator("#kept", has_text="preferences.jsonl").wait_for()
    kept = lines_of(page_home, "preferences.jsonl")[before:]
    assert len(kept) == 1 and kept[0]["prompt"][-1] == {"role": "user", "content": "Good morning"}
    assert kept[0]["chosen"] != kept[0]["rejected"]
    assert lines_of(page_home, "ratings.jsonl")[-1]["label"] is False


@pytest.mark.heavy
@pytest.mark.browser
def test_the_same_prompt_side_by_side_and_a_choice(page, page_home):
    page.get_by_label("Temperature").fill("1.0")
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Compare").get_attribute("aria-selected") == "true"
    assert page.locator("article h2").all_inner_texts() == ["Base", "Instruct", "RLHF", "Quantized"]
    facts = page.locator("article dl").all_inner_texts()
    assert all("size on disk" in text and "bits per byte" in text for text in facts)
    page.get_by_label("The same prompt for every model").fill("Tell me about films")
    page.keyboard.press("Enter")
    page.locator("#send-all", has_text="Compare").wait_for()
    assert all("the first after" in text for text in page.locator("article .speed").all_inner_texts())
    better = page.get_by_role("button", name="This one is better: Base")
    before = len(lines_of(page_home, "preferences.jsonl"))
    pictures(page, "serve-compare")
    better.click()
    page.locator("article.chosen").wait_for()
    kept = lines_of(page_home, "preferences.jsonl")[before:]
    assert 1 <= len(kept) <= 3 and {line["chosen_model"] for line in kept} == {"genai-pretrain"}
    page.get_by_role("button", name="Lineage of Base").click()
    page.get_by_role("dialog").get_by_text("tokenize").wait_for()
    pictures(page, "serve-lineage")
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


@pytest.mark.heavy
@pytest.mark.browser
def test_labels_are_given_blind_with_one_key_taken_back_and_gone_on_with(page, page_home):
    def labels() -> list:
        return [label.verdict for label in LabelFiles(page_home.root / "feedback").labels("ann")]

    page.get_by_label("Temperature").fill("1.5")
    page.get_by_role("tab", name="Label").click()
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("The other").select_option("genai-pretrain")
    page.get_by_label("Prompts, one a line").fill("\n".join(f"Tell me about film {number}" for number in range(8)))
    page.get_by_role("button", name="Start").click()
    page.get_by_text("1: the first").wait_for()
    asked = page.locator("#asked-label").inner_text()
    text = page.locator("#question-label").inner_text()
    assert "genai" not in text and page.locator("#first").inner_text() != page.locator("#second").inner_text()
    pictures(page, "serve-label")
    page.keyboard.press("2")
    wait_for(lambda: labels() == ["second"])
    page.locator("#asked-label", has_text="film").and_(page.locator(f"text=/^(?!{asked}$)/")).wait_for()
    page.keyboard.press("u")
    page.locator("#asked-label", has_text=asked).wait_for()
    wait_for(lambda: labels() == [])
    page.keyboard.press("t")
    wait_for(lambda: labels() == ["tie"])
    page.locator("#asked-label").and_(page.locator(f"text=/^(?!{asked}$)/")).wait_for()
    page.get_by_role("button", name="Start").click()      # as after a reload
    page.get_by_text("1: the first").wait_for()
    assert page.locator("#asked-label").inner_text() != asked, "nothing is asked twice"


@pytest.mark.heavy
def test_what_was_chosen_is_what_the_next_run_collects(finished, tmp_path):
    """With the command that the page shows."""
    home = copy_of(finished, tmp_path / "home")
    folder, asked = home.root / "feedback", [{"role": "user", "content": "Tell me about films"}]
    answers = [{"text": text, "model": "genai-quantize"} for text in ("Human: they move.", "No.")]
    for opinion in ({"kind": "choice", "prompt": asked, "chosen": answers[0], "rejected": answers[1:]},
                    {"kind": "thumb", "prompt": asked, "answer": answers[1], "good": False}):
        respond(folder, json.dumps(opinion).encode())
    home.genai("run", "--preset", "smoke", "--also", "--preferences", str(folder / "preferences.jsonl"),
               "--preferences", str(folder / "ratings.jsonl"), "--until", "collect")
    newest = max(home.artifacts("collect"), key=lambda path: path.stat().st_mtime)
    card = json.loads((newest / "data_card.json").read_text())
    assert {"preferences", "ratings"} <= set(card)


def test_a_page_with_a_key_asks_for_it(browser, finished, tmp_path):
    home = copy_of(finished, tmp_path / "home", GENAI_API_KEY="a-key-for-tests")
    with serving(home) as served:
        page = browser.new_page()
        page.goto(served.address)
        page.get_by_label("This server asks for its key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("wrong key").wait_for()
        page.get_by_label("This server asks for its key").fill("a-key-for-tests")
        page.keyboard.press("Enter")
        page.locator("#served", has_text="genai-quantize/1").wait_for()
        assert page.get_by_label("Message").is_visible()
        page.close()
        assert all("a-key-for-tests" not in process.environ().get("GENAI_API_KEY", "") for process in served.children())
