"""Code completion: what models wrote is run without harm, and judged as people's code is."""

import ast
import resource
import sys

import pytest

from genai_core.config.data import ArchiveSource, CollectConfig, StandardLibrarySource, TokenizeConfig
from genai_core.config.presets import PRESETS, read_yaml
from genai_core.context import Context
from genai_core.data.shards.tables import read_table, write_table
from genai_core.data.sources.archives import fetch
from genai_core.data.sources.readers import READERS
from genai_core.errors import InputError
from genai_core.families.code import evaluation as code
from genai_core.families.code.completions import Question, body, functions, next_lines, parses
from genai_core.families.code.config import CodeEvaluationConfig
from genai_core.families.code.evaluation import _looked_up, _pass_at_1
from genai_core.families.code.token_kinds import kinds_of_characters
from genai_core.sandbox import passes
from genai_core.stages import collect, tokenize


def problems():
    source = ArchiveSource(**read_yaml(str(PRESETS / "families" / "sources.yaml"))["human_eval"])
    return [record for _, record in READERS[source.reader](fetch(source, "human_eval"))]


def test_people_solve_every_problem_and_an_empty_function_solves_none():
    asked = problems()
    assert len(asked) == 164
    assert _pass_at_1(asked, [problem["solution"] for problem in asked], seconds=30) == 1.0
    assert _pass_at_1(asked[:20], ["    pass\n"] * 20, seconds=30) == 0.0


@pytest.mark.parametrize("attack", [
    "open({path!r}, 'w').write('gone')",
    "open({path!r}, 'r+').write('gone')",
    "import os; os.remove({path!r})",
    "import os; os.rename({path!r}, {path!r} + '2')",
    "import os; os.truncate({path!r}, 0)",
    "import os; os.open({path!r}, os.O_WRONLY | os.O_TRUNC)",
    "import pathlib; pathlib.Path({path!r}).unlink()",
    "import shutil; shutil.rmtree({folder!r})",
    "import os; os.system('rm ' + {path!r})",
    "import subprocess; subprocess.run(['rm', {path!r}])",
    "import os; os.fork()",
    "import os; os.kill(os.getppid(), 9)",
    "import socket; socket.create_connection(('127.0.0.1', 1), 1)",
    "import ctypes; ctypes.CDLL(None)",
    "import os; os.mkfifo({folder!r} + '/fifo')",
    "import os; os.mknod({folder!r} + '/node')",
    "import sys; del sys.modules['posix']; import posix; posix.mkfifo({folder!r} + '/fifo')",
    "import _posixshmem; _posixshmem.shm_unlink('/none')",
    "from multiprocessing.shared_memory import SharedMemory; SharedMemory(create=True, size=1)",
    "import _posixsubprocess; _posixsubprocess.fork_exec.__self__",
    "import os; os.pidfd_open(os.getppid())",
    "import readline; readline.write_history_file({folder!r} + '/history')",
    "import __main__; __main__.ALLOWED = {{'os.remove'}}; import os; os.remove({path!r})",
    "import os; os.O_CREAT = os.O_WRONLY = os.O_TRUNC = 0; open({folder!r} + '/new', 'w')",
    "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "b = bytearray(2 << 30)",
    "while True: pass",
    "import sys; sys.exit(0)",
    "import os; os._exit(0)",
    "print('x' * 100)\nraise ValueError",
    "def f(:",
])
def test_what_a_model_wrote_can_do_no_harm_and_does_not_pass(attack, tmp_path):
    folder = tmp_path / "precious"
    folder.mkdir()
    path = folder / "file.txt"
    path.write_text("kept")
    assert not passes(attack.format(path=str(path), folder=str(folder)), seconds=2 if "while" in attack else 20)
    assert path.read_text() == "kept" and list(folder.iterdir()) == [path]


SEARCHES = """
import gc, os, sys
def texts(value, depth=3):
    if isinstance(value, bytes):
        yield value
    elif depth and isinstance(value, dict):
        yield from (text for each in list(value.values()) for text in texts(each, depth - 1))
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        yield from (text for each in list(value) for text in texts(each, depth - 1))
found, frame = [text.encode() for text in sys.argv], sys._getframe()
while frame:
    for names in (frame.f_globals, frame.f_locals, frame.f_code.co_consts):
        found += texts(names)
    frame = frame.f_back
try:
    found += texts(gc.get_objects())
except PermissionError:
    pass
for text in found:
    if len(text) == 32:
        for descriptor in range(3, 10):
            try:
                os.write(descriptor, text)
            except OSError:
                pass
os._exit(0)
"""


@pytest.mark.parametrize("program", [
    SEARCHES, SEARCHES.replace("os._exit(0)", "").replace("sys._getframe()", "sys._getframe().f_back"),
    "import os, sys; os.write(3, sys.argv[1].encode()); os._exit(0)",
    "import os, sys; g = sys._getframe(1).f_globals; os.write(g['answer'], g['nonce']); os._exit(0)",
    "import __main__; __main__.steps()", 'kept = """', "if False:\n    pass\nelse:", "import sys; sys.exit(0)"])
def test_a_program_that_runs_no_test_has_not_passed(program):
    assert not passes(program, 20, ['assert 1 == 2, """none"""'])


def test_tests_see_what_the_program_defined():
    program = "from __future__ import annotations\nimport math\ndef area(r): return math.pi * r ** 2"
    assert passes(program, 20, ["assert round(area(1), 2) == 3.14", "assert area(0) == 0"])
    assert not passes(program, 20, ["assert area(0) == 0", "assert area(1) == 1"])


@pytest.mark.parametrize("module", ["collections", "dataclasses", "enum", "subprocess", "typing"])
def test_what_programs_import_can_be_imported(module):
    assert passes(f"from {module} import *\nfrom os import *", 20)


def test_of_what_a_program_writes_no_more_is_kept_than_tells_that_it_passed():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not passes("import os\nwhile True: os.write(3, b'x' * 65536)", seconds=4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kilobytes"


def test_a_program_that_computes_imports_and_prints_passes():
    assert passes("import json, decimal, statistics\nprint(json.dumps({'a': 1}))\nassert 6 * 7 == 42", seconds=20)
    assert not passes("assert 6 * 7 == 41", seconds=20)


def test_functions_and_lines_are_cut_where_the_question_is():
    text = ('import os\n\nclass A:\n    def f(self, x):\n        """Add one."""\n        y = x + 1\n        return y\n'
            '\n    def g(self):\n        return 2\n')
    question, = functions([text], 10)
    assert question.before == 'def f(self, x):\n    """Add one."""\n'
    assert question.expected == "    y = x + 1\n    return y\n"
    assert ast.unparse(ast.parse(question.before + question.expected))
    lines = next_lines([text], 100)
    assert [line.expected.strip() for line in lines] == ["def f(self, x):", '"""Add one."""', "y = x + 1", "return y",
                                                         "return 2"]
    assert all(text.startswith(line.before + line.expected) for line in lines)


def test_a_body_ends_where_the_indentation_does_and_an_empty_or_broken_one_does_not_parse():
    head = Question('def f(x):\n    """Doc."""\n', "")
    assert body("    return x\n\n\nclass B:\n    pass\n") == "    return x\n\n\n"
    assert body("    return x\n    y = (") == "    return x\n"
    assert parses(head, "    return x\nprint(f(1))")
    assert not parses(head, "\n\nprint(f(1))") and not parses(head, "    return (x\n\nclass")


def test_held_out_text_that_is_no_python_is_left_out_and_none_is_an_error(tmp_path, recorder):
    config = CollectConfig(sources={"library": StandardLibrarySource(licence="PSF-2.0", limit=20)}, test_fraction=0.2,
                           validation_fraction=0.2)
    collect.run(config, out_dir=tmp_path, context=Context(tmp_path, recorder, tmp_path))
    tokenize.run(TokenizeConfig(vocab_size=300), cleaned=tmp_path, out_dir=tmp_path,
                 context=Context(tmp_path, recorder, tmp_path))
    rows = [{**row, "text": "print 'of another Python'\n"} for row in read_table(tmp_path, "documents")]
    write_table(rows, "documents", tmp_path)
    with pytest.raises(InputError, match=r"lines of Python \(0 found\)"):
        code.run(CodeEvaluationConfig(), tokens=tmp_path, collected=tmp_path, models={}, out_dir=tmp_path,
                 context=Context(tmp_path, recorder, device="cpu"))


def test_looking_a_line_up_keeps_the_indentation():
    train = ["try:\n    import a\nexcept ImportError:\n    a = None\n", "except ImportError:\n    a = None\n",
             "except ImportError:\n    raise\n"]
    asked = [Question("def f():\n    try:\n        import a\n    except ImportError:\n", "        a = None"),
             Question("    something_never_seen()\n", "    x = 1")]
    assert _looked_up(train, asked) == ["        a = None", "    something_never_seen()"]


def test_each_character_has_a_kind():
    kinds = kinds_of_characters("def f(x):\n    return 'a' + x  # no\n")
    text = "def f(x):\n    return 'a' + x  # no\n"
    assert {text[i] for i, kind in enumerate(kinds) if kind == "keyword"} == set("defreturn")
    assert "".join(text[i] for i, kind in enumerate(kinds) if kind == "string") == "'a'"
    assert "".join(text[i] for i, kind in enumerate(kinds) if kind == "comment") == "# no"
    assert "".join(text[i] for i, kind in enumerate(kinds) if kind == "name") == "fxx"
    assert set("".join(text[i] for i, kind in enumerate(kinds) if kind == "layout")) <= {" ", "\n"}


def test_the_standard_library_is_a_source_whose_files_are_part_of_the_key(tmp_path, recorder, monkeypatch):
    config = CollectConfig(sources={"library": StandardLibrarySource(licence="PSF-2.0", limit=60)},
                           validation_fraction=0.2, test_fraction=0.2)
    collect.run(config, out_dir=tmp_path, context=Context(tmp_path, recorder, tmp_path))
    rows = read_table(tmp_path, "documents")
    assert len(rows) == 60 and all(isinstance(ast.parse(row["text"]), ast.Module) for row in rows)
    (name, digest), = collect.file_digests(config, tmp_path).items()
    assert name == f"library/python {sys.version.split()[0]}" and len(digest) == 64
    assert f"python {sys.version.split()[0]}" in (tmp_path / "DATA_CARD.md").read_text()
