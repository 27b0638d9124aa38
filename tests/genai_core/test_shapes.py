"""Shapes: what people have is recognised, named in the log, and becomes records of the table of its kind."""

import csv
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.config.data import FileSource
from genai_core.data.shards.tables import SCHEMAS
from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.files import read_files
from genai_core.data.sources.package_index import download
from genai_core.data.sources.shapes.rows import ROW_KEYS, read_row, recognise
from genai_core.errors import InputError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


TALK = [user("Hi"), assistant("Hello"), user("Bye"), assistant("See you")]
CHATS = [
    ({"messages": TALK}, "chat messages (messages)", TALK),
    ({"messages": [system("Be kind"), *TALK[:2]]}, "chat messages (messages)", [system("Be kind"), *TALK[:2]]),
    ({"messages": json.dumps(TALK)}, "chat messages (messages)", TALK),
    ({"messages": {"role": ["user", "assistant"], "content": ["Hi", "Hello"]}}, "chat messages (messages)", TALK[:2]),
    ({"messages": [user([{"type": "text", "text": "Hi"}]), TALK[1]]}, "chat messages (messages)", TALK[:2]),
    ({"conversations": [human("Hi"), gpt("Hello")], "system": "Be kind"},
     "ShareGPT conversations (conversations, system)", [system("Be kind"), *TALK[:2]]),
    ({"instruction": "Add", "input": "1 2", "output": "3"}, "Alpaca rows (instruction, input, output)",
     [user("Add\n1 2"), assistant("3")]),
    ({"instruction": "Hi", "output": "Hello", "system": "Be kind", "history": [["One?", "Two"]]},
     "Alpaca rows (instruction, output, system, history)",
     [system("Be kind"), user("One?"), assistant("Two"), user("Hi"), assistant("Hello")]),
    ({"question": "Hi", "answer": "Hello"}, "questions and answers (question, answer)", TALK[:2]),
    ({"prompt": "Hi", "completion": "Hello"}, "questions and answers (prompt, completion)", TALK[:2]),
    ({"prompt": "Hi", "response": "Hello"}, "questions and answers (prompt, response)", TALK[:2]),
    ({"prompt": TALK[:3], "completion": TALK[3:]}, "questions and answers (prompt, completion)", TALK),
    ({"conversations": [human("7 degrees?"), {"from": "function_call", "value": "{}"},
                        {"from": "observation", "value": "7"}, gpt("Yes")], "tools": "[{weather}]"},
     "ShareGPT conversations (conversations, tools)",
     [system("Tools:\n[{weather}]"), user("7 degrees?"), assistant("{}"), user("7"), assistant("Yes")]),
    ({"messages": [user("Both?"), {"role": "assistant", "content": None, "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, assistant("1 and 2")]},
     "chat messages (messages)",
     [user("Both?"), assistant('[{"name": "f", "arguments": "{}"}]'), user("1\n2"), assistant("1 and 2")]),
]

PREFERRED = {"prompt": [user("Hi")], "chosen": [assistant("Hello")], "rejected": [assistant("Go")]}
PREFERENCES = [
    {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"},
    {"prompt": [user("Hi")], "chosen": [assistant("Hello")], "rejected": [assistant("Go")]},
    {"chosen": [user("Hi"), assistant("Hello")], "rejected": [user("Hi"), assistant("Go")]},
    {"prompt": "Hi", "chosen": [user("Hi"), assistant("Hello")], "rejected": [user("Hi"), assistant("Go")]},
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: Go"},
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello", "rejected": "Go"},
    {"chosen": "Hi Hello", "rejected": "Hi Go"},
    {"conversations": [human("Hi")], "chosen": gpt("Hello"), "rejected": gpt("Go")},
    {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go"},
]

OTHERS = [
    ({"messages": TALK[:2], "label": True}, "ratings", {"messages": TALK[:2], "rating": 1.0, "raters": 1}),
    ({"prompt": "Hi", "completion": "Hello", "label": False}, "ratings",
     {"messages": TALK[:2], "rating": -1.0, "raters": 1}),
    ({"messages": TALK[:2], "rating": 3.5}, "ratings", {"messages": TALK[:2], "rating": 3.5, "raters": 1}),
    ({"text": "Fine", "rating": "4", "raters": 12}, "ratings", {"text": "Fine", "rating": 4.0, "raters": 12}),
    ({"question": "6 × 7?", "answers": ["42", "forty-two"]}, "problems",
     {"prompt": "6 × 7?", "answers": ["42", "forty-two"]}),
    ({"text": "Fine", "label": 1}, "documents", {"text": "Fine", "label": "1"}),
    ({"source": "Hi", "target": "Hola"}, "pairs", {"source_text": "Hi", "target_text": "Hola"}),
    ({"translation": {"en": "Hi", "es": "Hola"}}, "pairs", {"source_text": "Hi", "target_text": "Hola"}),
    ({"text": "Prose", "url": "x", "score": 3}, "documents", {"text": "Prose"}),
]


def read(folder, *rows, note=None, set_aside=None, **options):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileSource(paths=("rows.jsonl",), licence="own", **options)
    return list(read_files(source, "mine", folder, note, set_aside))


@pytest.mark.parametrize(("row", "shape", "messages"), CHATS)
def test_chats_in_each_shape(tmp_path, recorder, row, shape, messages):
    assert read(tmp_path, row, note=recorder.note) == [("chats", {"messages": messages})]
    assert recorder.notes == [f"mine: rows.jsonl: {shape}"]
    assert read(tmp_path, row, content="chats") == [("chats", {"messages": messages})]


@pytest.mark.parametrize("row", PREFERENCES)
def test_preferences_in_each_shape(tmp_path, row):
    assert read(tmp_path, row) == read(tmp_path, row, content="preferences") == [("preferences", PREFERRED)]


@pytest.mark.parametrize(("row", "table", "record"), OTHERS)
def test_other_kinds(tmp_path, row, table, record):
    assert read(tmp_path, row) == [(table, record)]


def test_columns_are_renamed_and_the_kind_decides_what_they_are(tmp_path):
    row = {"query": "6 × 7?", "solution": 42, "fold": "dev", "answer": "a long way there"}
    columns = {"prompt": "query", "answers": "solution", "split": "fold"}
    assert read(tmp_path, row, content="problems", columns=columns) == [
        ("problems", {"prompt": "6 × 7?", "answers": ["42"], "split": "validation"})]
    with pytest.raises(InputError, match=r"line 1: the split is '7'; there are train, validation and test"):
        read(tmp_path, row | {"fold": 7}, content="problems", columns=columns)
    with pytest.raises(ValueError, match="columns"):
        FileSource(paths=("x",), licence="own", columns={"prmpt": "question"})


def test_a_question_with_its_answer_is_a_problem_where_the_source_says_so(tmp_path):
    row = {"question": "6 × 7?", "answer": "42"}
    assert read(tmp_path, row, content="problems") == [("problems", {"prompt": "6 × 7?", "answers": ["42"]})]


SKY = ["green", "blue", "red", "black"]
BLUE = {"prompt": "The sky is", "answers": ["blue"], "choices": SKY}
MULTIPLE_CHOICE = [
    ({"question": "The sky is", "subject": "x", "choices": SKY, "answer": 1}, "question, choices, answer"),      # MMLU
    ({"question": "The sky is", "choices": SKY, "answer": "B"}, "question, choices, answer"),
    ({"question": "The sky is", "options": SKY, "answer": "B"}, "question, options, answer"),      # MMLU-Pro
    ({"prompt": "The sky is", "choices": SKY, "answers": ["blue"]}, "prompt, choices, answers"),
    ({"prompt": "The sky is", "choices": json.dumps(SKY), "answer": "blue"}, "prompt, choices, answer"),
    ({"question": "The sky is", "choices": {"text": SKY, "label": ["1", "2", "3", "4"]}, "answerKey": "2"},
     "question, choices, answerKey"),      # ARC
    ({"question": "The sky is", "answerKey": "B", "choices": [{"label": label, "text": text} for label, text
                                                               in zip("ABCD", SKY, strict=True)]},
     "question, choices, answerKey"),
    ({"ctx": "The sky is", "endings": SKY, "label": "1", "ind": 4}, "ctx, endings, label"),      # HellaSwag
    ({"question": "The sky is", **dict(zip("ABCD", SKY, strict=True)), "E": "", "answer": "B"},
     "question, A, B, C, D, E, answer"),
]


@pytest.mark.parametrize(("row", "columns"), MULTIPLE_CHOICE)
def test_multiple_choice_in_each_shape(tmp_path, recorder, row, columns):
    assert read(tmp_path, row, note=recorder.note) == [("problems", BLUE)]
    assert recorder.notes == [f"mine: rows.jsonl: multiple-choice problems ({columns})"]
    assert read(tmp_path, row, content="problems") == [("problems", BLUE)]


def test_multiple_choice_in_a_csv_file(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["question", *"ABCD", "answer"], ["The sky is", *SKY, "B"]])
    assert list(read_files(FileSource(paths=("a.csv",), licence="own"), "mine", tmp_path)) == [("problems", BLUE)]


@pytest.mark.parametrize(("choices", "answer", "reason"), [
    (["blue"], 0, "1 choice, where a multiple-choice problem has at least two"),
    (["blue", " "], 0, "a choice without a text"),
    (["blue", "red", "blue "], 0, "two choices are both 'blue'"),
    (SKY, 4, "the answer '4' is none of the 4 choices; give the text, the letter or the number from 0"),
    (SKY, -1, "the answer '-1' is none"), (SKY, "E", "the answer 'E' is none"), (SKY, "", "the answer '' is none"),
    (SKY, True, "the answer 'True' is none"), (SKY, "white", "the answer 'white' is none"),
    (["B", "A"], "A", "the answer 'A' is the text of one choice and stands for the place of another"),
    ({"text": SKY, "label": ["A"]}, "A", "as many labels as texts"), (SKY, [], "no right answer"),
])
def test_multiple_choice_that_cannot_be_told(tmp_path, choices, answer, reason):
    first = {"question": "Which?", "choices": SKY, "answer": 1}
    with pytest.raises(InputError, match=rf"collect\.sources\.mine: .*rows\.jsonl, line 2: .*{re.escape(reason)}"):
        read(tmp_path, first, {"question": "Which?", "choices": choices, "answer": answer})


def test_numbers_that_are_choices_are_chosen_by_place_where_the_answer_is_a_number(tmp_path):
    row = {"question": "1 + 1", "choices": ["1", "2", "3", "0"], "answer": 1}
    assert read(tmp_path, row)[0][1]["answers"] == ["2"]
    assert read(tmp_path, row | {"choices": [0, 1, 2, 3]})[0][1]["answers"] == ["1"]


def test_a_file_of_multiple_choice_holds_nothing_else(tmp_path):
    first = {"question": "The sky is", "choices": SKY, "answer": "blue"}
    with pytest.raises(InputError, match="line 2: no choices with the right one"):
        read(tmp_path, first, {"question": "6 × 7?", "answer": "42"})
    plain = {"question": "6 × 7?", "answers": ["42"]}
    assert read(tmp_path, plain, first)[1] == ("problems", BLUE)


def test_messages_in_a_cell_of_a_csv_file(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["messages", "label"], [json.dumps(TALK), "false"]])
    (record,) = read_files(FileSource(paths=("a.csv",), licence="own"), "mine", tmp_path)
    assert record == ("ratings", {"messages": TALK, "rating": -1.0, "raters": 1})


@pytest.mark.parametrize(("row", "reason"), [
    ({"prompt": "Hi", "chosen": "Same", "rejected": "Same"}, "chosen and rejected are equal"),
    ({"chosen": TALK, "rejected": TALK}, "chosen and rejected are equal"),
    ({"chosen": "Yes", "rejected": "No"}, "no prompt: there is no column `prompt`"),
    ({"prompt": "Hi", "chosen": "", "rejected": "No"}, "no text or messages in column 'chosen'"),
    ({"messages": TALK[:3]}, "the last message is not the assistant's"),
    ({"messages": [assistant("Hello")]}, "the user says nothing"),
    ({"messages": [TALK[0], system("late"), TALK[1]]}, "a system message that is not the first"),
    ({"messages": [user(" "), TALK[1]]}, "a message without a text"),
    ({"messages": TALK, "images": ["a.png"]}, "images or sounds"),
    ({"messages": [user([{"type": "image_url"}]), TALK[1]]}, "parts that are no text"),
    ({"text": "x", "rating": float("nan")}, "no number in column 'rating'"),
    ({"text": "x", "rating": "good"}, "no number in column 'rating'"),
    ({"prompt": "x", "answers": []}, "no answer in column 'answers'"),
    ({"source": "x", "target": ""}, "the text in column 'target' is empty"),
    ({"instruction": "x", "output": "y", "history": ["z"]}, "pairs of question and answer"),
])
def test_a_row_that_cannot_be_used_is_told_with_its_place(tmp_path, row, reason):
    with pytest.raises(InputError, match=rf"collect.sources.mine: .*rows.jsonl, line 1: .*{reason}.* .on_bad_row: sk"):
        read(tmp_path, row)


def test_bad_rows_are_set_aside_where_the_source_says_so_and_never_more_than_half(tmp_path):
    told = []
    good, bad = {"text": "fine"}, {"text": None}
    found = read(tmp_path, good, bad, good, {"chosen": 1}, on_bad_row="skip", set_aside=lambda *row: told.append(row))
    assert len(found) == 2
    assert [row[:2] for row in told] == [("mine", "rows.jsonl, line 2"), ("mine", "rows.jsonl, line 4")]
    assert told[0][3] == bad and "no text in column 'text'" in told[0][2]
    with pytest.raises(InputError, match=r"collect.sources.mine: 2 of 3 rows cannot be used, 2 of them because of: no"):
        read(tmp_path, bad, good, bad, on_bad_row="skip")


def test_an_open_quotation_mark_costs_its_own_row(tmp_path):
    (tmp_path / "a.csv").write_text('text,n\none,1\n"two,2\nthree,3\n"fo""ur",4\n\nfive,5\n')
    told = []
    source = FileSource(paths=("a.csv",), licence="own", on_bad_row="skip")
    found = read_files(source, "mine", tmp_path, None, lambda *row: told.append(row[1]))
    assert [record["text"] for _, record in found] == ["one", "three", 'fo"ur', "five"] and told == ["a.csv, line 3"]


def test_any_json_is_read_or_refused_and_what_is_read_fits_its_table(tmp_path):
    """Whatever lies in the columns that shapes look at: a record that the table takes, or one reason."""
    words = st.sampled_from(["", "Hi", "\ud800", "\n\nHuman: Hi\n\nAssistant: Hello", "[{", "true", "nan", "gpt"])
    scalar = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | words
    keys = st.sampled_from(["role", "from", "content", "value", "tool_calls", "type", "text"])
    value = st.recursive(scalar, lambda inner: (st.lists(inner, max_size=3)
                                                | st.dictionaries(keys, inner, max_size=4)), max_leaves=8)
    message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": words | value})
    cell = value | st.lists(message, max_size=4)

    @settings(max_examples=1500, deadline=None)
    @given(st.dictionaries(st.sampled_from(sorted(ROW_KEYS | {"split"})), cell, max_size=5))
    def read_or_refuse(row):
        try:
            table, record = read_row(row, recognise(row, "auto"), False)
        except BadRow as error:
            assert "\n" not in str(error)
            return
        record = {"id": "x", "source": "x", "split": "train", "licence": "x"} | record
        assert pa.Table.from_pylist([record], schema=SCHEMAS[table]).num_rows == 1
        assert set(record) <= set(SCHEMAS[table].names)

    read_or_refuse()


def test_classes_go_by_the_names_that_the_file_gives_them(tmp_path):
    features = {"text": {"_type": "Value"}, "label": {"_type": "ClassLabel", "names": ["bad", "good"]}}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_files(FileSource(paths=("a.parquet",), licence="own"), "mine", tmp_path)
    assert [record["label"] for _, record in found] == ["good", "bad"]


def test_a_line_that_is_too_long_is_passed_over(tmp_path):
    with (tmp_path / "a.jsonl").open("wb") as out:
        out.truncate(2**28)      # a hole: nothing is written
        out.seek(0, 2)
        out.write(b'\n{"text": "fine"}\n')
    source = FileSource(paths=("a.jsonl",), licence="own", on_bad_row="skip")
    assert [record["text"] for _, record in read_files(source, "mine", tmp_path)] == ["fine"]


def test_half_of_a_surrogate_pair_is_replaced(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud83d b \\ud83d\\ude00", "label": "\\udc00"}\n')
    ((_, record),) = read_files(FileSource(paths=("a.jsonl",), licence="own"), "mine", tmp_path)
    assert record == {"text": "a \ufffd b 😀", "label": "\ufffd"}


def test_every_example_of_the_documentation_is_read_as_the_kind_that_it_stands_under(tmp_path):
    kind, count = "", 0
    for line in (Path(__file__).parents[2] / "docs" / "data.md").read_text().splitlines():
        if match := re.match(r"\*\*(\w+)\*\*:", line):
            kind = match[1]
        if line.startswith("    {"):
            ((table, record),) = read(tmp_path, json.loads(line), content="auto")
            assert table == ("documents" if kind == "labelled" else kind), line
            assert ("label" in record) == (kind == "labelled")
            count += 1
    assert count > 12


SDIST = "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f"
REAL = [("alpaca_en_demo.json", "chats", 999, "Alpaca rows (instruction, input, output)"),
        ("dpo_en_demo.json", "preferences", 300, "preferences (conversations, chosen, rejected)"),
        ("kto_en_demo.json", "ratings", 300, "conversations with a verdict (KTO) (messages, label)"),
        ("glaive_toolcall_en_demo.json", "chats", 300, "ShareGPT conversations (conversations, tools)"),
        ("c4_demo.jsonl", "documents", 300, "texts (text)"),
        ("wiki_demo.txt", "documents", 1, ".txt files, a document each")]


@pytest.fixture(scope="module")
def real_files(tmp_path_factory):
    """The demonstration data of LLaMA-Factory, as it lies in its source archive."""
    folder = tmp_path_factory.mktemp("real")
    try:
        archive = download("llamafactory==0.9.5", SDIST, folder)
    except InputError as error:
        pytest.skip(f"needs the source archive of llamafactory: {error}")
    with tarfile.open(archive) as members:
        for name, *_ in REAL:
            member = members.extractfile(f"llamafactory-0.9.5/data/{name}")
            (folder / name).write_bytes(member.read())
    return folder


@pytest.mark.parametrize(("name", "table", "count", "shape"), REAL)
def test_real_files_are_read_as_they_lie_there(real_files, monkeypatch, recorder, name, table, count, shape):
    monkeypatch.setenv("GENAI_DATA_ROOTS", str(real_files))
    source = FileSource(paths=(name,), licence="Apache-2.0")
    records = list(read_files(source, "mine", real_files, recorder.note))
    assert Counter(found for found, _ in records) == {table: count}
    assert recorder.notes == [f"mine: {name}: {shape}"]


def test_verdicts_and_tools_of_the_real_files(real_files, monkeypatch):
    monkeypatch.setenv("GENAI_DATA_ROOTS", str(real_files))

    def records(name):
        return [record for _, record in read_files(FileSource(paths=(name,), licence="x"), "mine", real_files)]

    assert Counter(record["rating"] for record in records("kto_en_demo.json")) == {1.0: 150, -1.0: 150}
    first = records("glaive_toolcall_en_demo.json")[0]["messages"]
    assert [message["role"] for message in first[:7]] == ["system", "user", "assistant", "user", "assistant", "user",
                                                         "assistant"][:7]
    assert first[0]["content"].startswith('Tools:\n[{"name": "search_recipes"')


HI, BYE, HELLO, BE_KIND = user("Hi"), user("Bye"), assistant("Hello"), system("Be kind")


@pytest.mark.parametrize(("row", "message"), [
    ({"prompt": [HI], "chosen": [HI, HELLO], "rejected": [BYE, HELLO]},
     "`rejected` answers another prompt than `prompt`"),
    ({"prompt": "Hi", "chosen": [BYE, HELLO], "rejected": "No"}, "`chosen` answers another prompt than `prompt`"),
    ({"chosen": [HI, HELLO], "rejected": [BYE, HELLO]}, "chosen and rejected begin with different messages"),
    ({"chosen": [BE_KIND, HI, HELLO], "rejected": [BE_KIND, BYE, HELLO]},
     "chosen and rejected answer different prompts: a preference compares two answers to one"),
])
def test_preferences_whose_prompts_differ_are_told_as_such(tmp_path, row, message):
    with pytest.raises(InputError, match=rf"line 1: .*{message}"):
        read(tmp_path, row, content="preferences")
