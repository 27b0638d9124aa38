"""The key of a stage: the code of the kinds that it opens, and the same on every version of Python."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.families.directory import save_family_model
from genai_core.families.vae.model import Vae, VaeShape
from tasks.catalog import FAMILIES, find_stage, stages_for
from tasks.language_model import STAGES
from tasks.pipeline import PipelineRun, StageRequest
from tasks.store import fingerprint
from tasks.store.artifacts import Store, read_manifest
from tasks.store.key import key_parts
from tasks.store.workspace import REPOSITORY, Workspace


def pretend(workspace, stage, fill):
    """Commit an artifact of a stage, whatever it was made from."""
    from tasks.store.artifacts import KeyParts

    parts = KeyParts(stage.name, {}, {}, {"made": {"up": stage.name}})
    store = Store(workspace)
    directory = store.directory(stage.name, stage.kind, parts.key)
    with store.new(directory, parts) as scratch:
        fill(scratch)
        return store.commit(scratch, directory, parts, {})


def test_the_kind_of_model_that_a_stage_really_opens_is_part_of_its_key(tmp_path):
    workspace = Workspace(tmp_path)
    family = FAMILIES["augmentation"]
    config = family.load("smoke")
    stage = find_stage("augmentation", "augmented_classifier")

    def vae(directory):
        shape = VaeShape(8, 4, 10)
        save_family_model(Vae(shape), "vae", shape, directory)

    def gan(directory):
        from genai_core.families.gan.model import Gan, GanShape

        shape = GanShape(8, 4, True)
        save_family_model(Gan(shape), "gan", shape, directory)

    digits = pretend(workspace, find_stage("augmentation", "few_digits"), lambda path: (path / "x").write_text("x"))
    opened = {}
    for name, maker in (("vae", vae), ("gan", gan)):
        made = pretend(workspace, find_stage("augmentation", "few_vae"), maker)
        opened[name] = key_parts(stage, config, {"few_digits": digits, "few_vae": made}, workspace).code
    assert "genai_core.families.vae.model" in opened["vae"] and "genai_core.families.gan.model" not in opened["vae"]
    assert "genai_core.families.gan.model" in opened["gan"] and "genai_core.families.vae.model" not in opened["gan"]


def test_a_stage_that_opens_no_model_by_the_table_has_no_kind_in_its_key():
    unopened = {"genai_core.models.kinds", "genai_core.inference.chat", "genai_core.quantization.directory"}
    for stage in ("pretrain", "instruct", "reward", "rlhf"):
        assert not unopened & set(fingerprint.code_fingerprint(f"genai_core.stages.{stage}"))


REACHED = {"instruct", "rlhf", "quantize", "evaluate", "promote"}


@pytest.mark.parametrize(("field", "value", "changed"), [
    ("tasks.sentiment.questions", 7, {"evaluate", "promote"}),
    ("tasks.dialogue.metrics", ["chrf"], {"evaluate", "promote"}),
    ("tasks.translation.plain_prompt", "{source} =", {"evaluate", "promote"}),
    ("tasks.title.answer_tokens", 9, {"evaluate", "promote"}),
    ("tasks.sentiment.labels", ["positive", "negative", "neutral"], {"evaluate", "promote"}),
    ("tasks.trivia.examples", 7, REACHED), ("tasks.trivia.loss", "token", REACHED),
    ("tasks.continuation.opening_words", 7, REACHED), ("tasks.sentiment.prompt", "Good?\n{text}", REACHED),
    ("tasks.more", {"content": "chats", "examples": 0}, {"evaluate", "promote"}),
    ("tasks.more", {"content": "chats"}, REACHED),
    ("collect.sources.trivia.enabled", False, REACHED | {"collect"}),
    ("rlhf.steps", 5, {"rlhf", "evaluate"}), ("rlhf.tasks", ["trivia"], {"rlhf", "evaluate"}),
])
def test_what_of_a_task_a_stage_depends_on_is_in_its_key_and_no_more(tmp_path, field, value, changed):
    """With the same bytes of every input. Only whom it is learned from changes models; questions and metrics do not."""
    workspace = Workspace(tmp_path)
    made = {stage.name: pretend(workspace, stage, lambda path: (path / "x").write_text("x")) for stage in STAGES}

    def keys(config):
        return {stage.name: key_parts(stage, config, made, workspace).key for stage in stages_for(config)}

    before, after = keys(load_pipeline("smoke")), keys(load_pipeline("smoke", {field: value}))
    assert {name for name in before if before[name] != after[name]} == changed


def test_which_name_is_imported_from_where_counts_and_the_order_does_not():
    one = fingerprint.module_digests("import os\nfrom torch.nn.functional import relu as act\n")
    assert one == fingerprint.module_digests("from torch.nn.functional import relu as act\nimport os\n")
    assert one != fingerprint.module_digests("import os\nfrom torch.nn.functional import gelu as act\n")


def test_none_in_a_list_is_not_the_constant():
    for one, other in (("f(**x)\n{**x}", "f(**x)\n{None: x}"), ("def f(*, a): 1", "def f(*, a=None): 1")):
        assert fingerprint.module_digests(one) != fingerprint.module_digests(other)


def test_the_constants_of_a_config_count(monkeypatch):
    one = fingerprint.module_digests('TASKS = ("a", "b")\nclass C(Config):\n    x: int = 1\n', config=True)
    assert one != fingerprint.module_digests('TASKS = ("b", "a")\nclass C(Config):\n    x: int = 1\n', config=True)
    assert one == fingerprint.module_digests('TASKS = ("a", "b")\nclass C(Config):\n    x: int = 2\n', config=True)


def test_relative_imports_of_another_package_are_followed(tmp_path, monkeypatch):
    package = tmp_path / "pk"
    (package / "inner").mkdir(parents=True)
    for name, text in (("__init__", ""), ("core", "from .model import Net\nfrom . import tools\n"),
                       ("model", "Net = 1\n"), ("tools", "from .inner.deep import X\n"), ("inner/__init__", ""),
                       ("inner/deep", "from ..model import Net as X\n")):
        (package / f"{name}.py").write_text(text)
    (tmp_path / "single.py").write_text("def run(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(fingerprint.code_fingerprint("pk.core")) == {"pk.core", "pk.model", "pk.tools", "pk.inner.deep"}
    assert set(fingerprint.code_fingerprint("single")) == {"single"}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_no_family_is_part_of_a_key_of_the_language_model(stage):
    assert not [name for name in fingerprint.code_fingerprint(stage.core) if ".families" in name]


def test_a_config_counts_by_what_its_functions_compute_and_not_by_its_words():
    def digests(fields, factor):
        source = f"class A(Config):\n    {fields}\n    def scaled(self): return {factor} * self.x\n"
        return fingerprint.module_digests(source, config=True)

    before = digests("x: int = 1", 2)
    assert before == digests("x: int = 5\n    '''How many.'''", 2)
    after = digests("x: int = 1", 3)
    assert before.keys() == after.keys() == {"A.scaled"} and before != after
    rlhf = fingerprint.code_fingerprint("genai_core.stages.rlhf")
    assert "RlhfConfig.prompts" in rlhf["genai_core.config.training"]
    assert "worded" in rlhf["genai_core.config.tasks"] and "Task.judged_by" in rlhf["genai_core.config.tasks"]


SAMPLE = '''
"""Words."""
import os
LIMIT = 3.5
def generic(a, /, b: int = 1, *c, d=None, **e) -> "f":
    """More words."""
    with open(a) as f, open(b) as g:
        return f"{a!r:>{b}} text" "side by side" f"{LIMIT:.2f}" if (x := a) else [y for y in c if y]
class Thing(list, metaclass=type):
    @property
    async def wait(self):
        match self:
            case [1, *rest] | {"k": 2}: yield b"bytes"
            case _: raise ValueError("no") from None
'''


def test_digests_are_the_same_on_every_python():
    """The digests of a fixed text are fixed, and other interpreters that are at hand give those of the whole core."""
    assert fingerprint.module_digests(SAMPLE) == {"generic": "aea93641e132c204", "Thing": "1727dc2ce88ece82",
                                                  "(module)": "46553459c3202e8f"}
    program = ("import importlib.util, json, sys; spec = importlib.util.spec_from_file_location('f', sys.argv[1]);"
               "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
               "print(json.dumps([module.code_fingerprint(name) for name in sys.argv[2:]]))")
    modules = [stage.core for family in ("", *FAMILIES) for stage in (
        FAMILIES[family].all_stages if family else STAGES)]
    here = json.dumps([fingerprint.code_fingerprint(name) for name in modules])
    for interpreter in other_interpreters():
        there = subprocess.run([interpreter, "-c", program, fingerprint.__file__, *modules], capture_output=True,
                               text=True, check=True).stdout
        assert json.loads(there) == json.loads(here), interpreter


def other_interpreters() -> list[str]:
    names = [f"python3.{minor}" for minor in (11, 12, 13) if minor != sys.version_info.minor]
    found = [shutil.which(name) or next(map(str, sorted(Path.home().glob(f".pyenv/versions/{name[6:]}.*/bin/{name}"))),
                                        None) for name in names]
    return [path for path in found if path and subprocess.run([path, "-V"], capture_output=True).returncode == 0]


def test_a_request_executes_in_another_process_from_its_json(tmp_path, prose):
    """All that executing takes travels as some kilobytes of JSON; the other process finds its inputs by their paths."""
    (tmp_path / "texts").mkdir()
    for number, page in enumerate(prose):
        (tmp_path / "texts" / f"{number}.txt").write_text(page)
    workspace = Workspace(tmp_path)
    source = {"kind": "files", "paths": ["texts/*.txt"], "licence": "PSF"}
    config = load_pipeline("smoke", {"collect.replace_sources": True, "collect.sources.mine": source})
    run = PipelineRun(config, workspace)
    for stage in run.stages[:2]:
        request = run.request(stage)
        text = request.model_dump_json()
        assert StageRequest.model_validate_json(text) == request and len(text) < 60_000
        done = subprocess.run([sys.executable, "-m", "tasks.execution.execute"], input=text, capture_output=True,
                              text=True, cwd=REPOSITORY, check=False, env=environment(tmp_path))
        assert done.returncode == 0, done.stderr
        artifact = json.loads(done.stdout.splitlines()[-1])
        manifest = read_manifest(tmp_path / artifact["path"])
        assert manifest["key"] == request.parts.key and manifest["digest"] == artifact["digest"]
        run.artifacts[stage.name] = Store.of(workspace).find(tmp_path / artifact["path"])


def environment(home: Path) -> dict[str, str]:
    import os

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**kept, "GENAI_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
