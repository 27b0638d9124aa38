"""The options of `genai run` for one's own data: what they replace, and what files turn out to hold."""

import json

import pytest

from flows.cli.commands.run import overrides_of_options
from flows.cli.own_data import own_data
from genai_core.config.pipeline import STAGE_NAMES as EVERY_STAGE
from genai_core.config.pipeline import load_pipeline
from genai_core.data.sources.paths import find_local
from genai_core.errors import InputError
from genai_core.stages.collect import file_digests
from tasks.config import load_config

STAGE_NAMES = tuple(name for name in EVERY_STAGE if name != "adopt")      # which only a base from outside gives
FILES = {
    "chats": [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}],
    "preferences": [{"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}],
    "verdicts": [{"prompt": "Hi", "completion": "Hello", "label": True},
                 {"prompt": "Hi", "completion": "Go away", "label": False}],
    "problems": [{"prompt": "What is 6 × 7?", "answers": ["42"]}],
    "rated": [{"text": "A fine film.", "rating": 4.5}],
}
TEXT_OF_SMOKE = ("wikitext-2", "reviews")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAI_HOME", str(tmp_path))
    (tmp_path / "book.txt").write_text("Once upon a time.\n")
    for name, rows in FILES.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(also=False, **given):
    return load_config("smoke", "", own_data({name: list(paths) for name, paths in given.items()}, also))


def test_ones_own_text_replaces_every_source(files):
    taken = config(text=["book.txt"])
    assert tuple(taken.collect.sources) == ("book",) and not taken.tasks
    assert taken.collect.sources["book"].paths == (str(files / "book.txt"),), "where the user is counts"
    assert "instruct" not in taken.stage_names


@pytest.mark.parametrize(("option", "file", "content", "stages"), [
    ("chats", "chats", "chats", 8), ("preferences", "preferences", "preferences", 10),
    ("preferences", "verdicts", "ratings", 10), ("problems", "problems", "problems", 8),
    ("data", "chats", "chats", 8), ("data", "preferences", "preferences", 10), ("data", "verdicts", "ratings", 10),
    ("data", "problems", "problems", 8), ("data", "rated", "ratings", 7)])
def test_what_is_no_text_leaves_the_text_of_the_preset(files, option, file, content, stages):
    taken = config(**{option: [f"{file}.jsonl"]})
    assert tuple(taken.collect.sources) == (*TEXT_OF_SMOKE, file)
    assert taken.collect.sources[file].content == content
    assert set(taken.tasks) == ({file} if stages > 7 else set())
    assert len(taken.stage_names) == stages


def test_ratings_of_texts_alone_say_what_is_missing(files, capsys):
    taken = config(data=["rated.jsonl"])
    assert "rated: ratings of texts alone train nothing" in (told := capsys.readouterr().err) and "--also" in told
    assert taken.why_not("reward") == ("there is no instruct model (no chats or other tasks to fine-tune on), which "
                                       "ratings of texts alone do not make; add chats")
    config(data=["rated.jsonl", "chats.jsonl"])
    config(data=["verdicts.jsonl"])
    assert "train nothing" not in capsys.readouterr().err


def test_text_that_is_recognised_replaces_text(files):
    assert tuple(config(data=["book.txt", "chats.jsonl"]).collect.sources) == ("book", "chats")


@pytest.fixture
def mixed(files):
    """A folder with chats, two books and, in a folder of it, preferences."""
    folder = files / "mixed"
    (folder / "deep").mkdir(parents=True)
    (folder / "chats [1].jsonl").write_text((files / "chats.jsonl").read_text())
    (folder / "deep" / "p.jsonl").write_text((files / "preferences.jsonl").read_text())
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text("Once upon a time.\n")
    return folder


def test_a_folder_with_several_kinds_is_a_source_for_each(mixed, files, capsys):
    taken = config(data=["mixed"])
    found = {name: (source.content, [found.file.name for found in find_local(source, name, files)])
             for name, source in taken.collect.sources.items()}
    assert found == {"mixed": ("chats", ["chats [1].jsonl"]), "mixed-2": ("preferences", ["p.jsonl"]),
                     "mixed-3": ("documents", ["one.txt", "two.txt"])}
    assert set(taken.tasks) == {"mixed", "mixed-2"} and taken.stage_names == STAGE_NAMES
    assert "mixed: documents in 2 files, a source of its own: one.txt …" in capsys.readouterr().err


def test_the_splits_of_a_saved_dataset_outlast_the_parting(files):
    folder = files / "saved"
    for split, name in (("train", "chats"), ("train", "problems"), ("test", "chats")):
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / split / f"{name}.jsonl").write_text((files / f"{name}.jsonl").read_text())
    (folder / "dataset_dict.json").write_text("{}")
    sources = own_data({"data": ["saved"]}, also=True)
    assert [(source["content"], source.get("split")) for source in sources.values()] == [
        ("chats", "test"), ("chats", None), ("problems", None)]


def test_a_source_of_a_preset_with_several_kinds_is_told_which_files_to_part(mixed):
    source = {"kind": "files", "paths": ["mixed"], "licence": "own"}
    with pytest.raises(InputError, match=r"collect\.sources\.mine: chats in .*chats \[1\]\.jsonl and preferences in "
                                         r".*p\.jsonl, and a source is of one kind; split it"):
        load_config("smoke", "", {"collect.sources.mine": source})


def test_also_keeps_the_data_of_the_preset_its_tasks_and_its_gates(files):
    smoke, taken = load_pipeline("smoke"), config(also=True, text=["book.txt"], chats=["chats.jsonl"])
    assert set(taken.collect.sources) == {*smoke.collect.sources, "book", "chats"}
    assert set(taken.tasks) == {*smoke.tasks, "chats"} and taken.promote == smoke.promote
    assert taken.stage_names == STAGE_NAMES and taken.reward == smoke.reward and taken.rlhf == smoke.rlhf


def test_also_without_data_and_data_of_a_family_are_refused(files):
    with pytest.raises(InputError, match="--also: keeps the preset's data beside your own; give some"):
        own_data({"text": None}, also=True)
    with pytest.raises(InputError, match="--family vae: a family learns from its own data"):
        overrides_of_options("laptop", "vae", None, False, text=["book.txt"])
    assert own_data({"text": None, "chats": []}, also=False) == {}


def test_sources_are_called_after_their_files_and_never_alike(files):
    (files / "My book.v2.TXT.gz").touch()
    taken = own_data({"text": ["book.txt", "./book.txt", "My book.v2.TXT.gz", "https://example.org/...jsonl"],
                      "chats": ["book.jsonl"]}, also=False)
    assert [name.removeprefix("collect.sources.") for name in taken if "replace" not in name] == [
        "book", "book-2", "my-book", "documents", "book-3"]
    assert taken["collect.sources.documents"]["paths"] == ["https://example.org/...jsonl"]


@pytest.mark.parametrize("option", ["text", "chats", "preferences", "data"])
def test_a_file_that_is_not_there_is_one_line_before_anything_starts(files, option):
    with pytest.raises(InputError, match=r"collect\.sources\.no\.paths: no file matches .*no\.jsonl") as caught:
        file_digests(load_config("smoke", "", own_data({option: ["no.jsonl"]}, also=False)).collect, files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["preferences", "verdicts"])
def test_beside_a_preset_that_names_what_teaches_its_reward_model_ones_own_judgements_teach_it_too(files, file):
    smoke = load_pipeline("smoke")
    given = overrides_of_options("smoke", "", None, True, preferences=[f"{file}.jsonl"])
    taken = load_config("smoke", "", given)
    assert taken.reward.sources == (*smoke.reward.sources, file)
    assert taken.rlhf.tasks == (*smoke.rlhf.tasks, file), "and RLHF answers what was asked"
    said = overrides_of_options("smoke", "", ["reward.sources=[vader]"], True, preferences=[f"{file}.jsonl"])
    assert load_config("smoke", "", said).reward.sources == ("vader",), "what is said in so many words counts"


def test_rated_texts_beside_a_preset_teach_its_reward_model_alone(files):
    smoke = load_pipeline("smoke")
    taken = load_config("smoke", "", overrides_of_options("smoke", "", None, True, data=["rated.jsonl"]))
    assert taken.reward.sources == (*smoke.reward.sources, "rated") and taken.rlhf.tasks == smoke.rlhf.tasks
