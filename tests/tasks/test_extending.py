"""Adding to the pipeline from outside, as docs/architecture.md says: no file of this project is touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.store.workspace import REPOSITORY

FAMILY = '''
from pathlib import Path
from tasks.family import Family, dataset, evaluation, model

FAMILY = Family(
    "bigrams", "Bigrams of characters", "bigrams.core:BigramsFamily",
    (dataset("bigram_tokens", "genai_core.stages.tokenize", "cut the text into characters", "cleaned"),
     model("bigram", "bigrams.core", "count pairs of characters", "A table of pairs of characters.",
           ("parameters",), (), tokens="bigram_tokens"),
     evaluation("bigrams.evaluation", ("bigram",), tokens="bigram_tokens")),
    figures=("bits_per_character",), shown_model="bigram", presets=Path(__file__).with_name("bigrams.yaml"))
'''

CORE = '''
import torch
from torch import nn

from genai_core.config.base import Config
from genai_core.config.data import TokenizeConfig
from genai_core.context import Result
from genai_core.data.tokens.token_files import read_tokens
from genai_core.data.tokens.tokenizer import load_tokenizer
from genai_core.families.config import FamilyConfig
from genai_core.families.directory import load_into, read_shape, save_family_model
from dataclasses import dataclass
from genai_core.models.opened import Opened


class BigramConfig(Config):
    smoothing: float = 1.0
    """Added to every count."""


class EvaluationConfig(Config):
    held_out_tokens: int = 1000
    """Most held-out tokens."""


class BigramsFamily(FamilyConfig):
    bigram_tokens: TokenizeConfig
    bigram: BigramConfig = BigramConfig()
    evaluate: EvaluationConfig = EvaluationConfig()


@dataclass(frozen=True)
class Shape:
    vocab_size: int


class Bigram(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.table = nn.Parameter(torch.zeros(shape.vocab_size, shape.vocab_size))


def run(config, *, tokens, out_dir, context):
    size = load_tokenizer(tokens).get_vocab_size()
    ids = torch.from_numpy(read_tokens(tokens, "train").ids.astype("int64"))
    model = Bigram(Shape(size))
    counts = torch.bincount(ids[:-1] * size + ids[1:], minlength=size * size).view(size, size) + config.smoothing
    model.table.data = (counts / counts.sum(1, keepdim=True)).log().float()
    save_family_model(model, "bigram", model.shape, out_dir, tokens)
    return Result({"parameters": size * size})


class OpenedBigram(Opened):
    produces = "text"

    def complete(self, prompt, max_new_tokens, sampling, seed=None):
        tokenizer = load_tokenizer(self.directory)
        token = tokenizer.encode(prompt, add_special_tokens=False).ids[-1]
        for _ in range(max_new_tokens):
            token = int(self.model.table[token].argmax())
            yield tokenizer.decode([token])

    def chat(self, messages, max_new_tokens, sampling, seed=None):
        return self.complete(messages[-1]["content"], max_new_tokens, sampling, seed)


def open_bigram(directory, device):
    return OpenedBigram(directory, load_into(Bigram(read_shape(directory, Shape)), directory, device), device)
'''

EVALUATION = '''
import math
import torch
from genai_core.data.tokens.token_files import read_tokens
from genai_core.families.report import Pictures, write_evaluation
from genai_core.models.kinds import open_model


def run(config, *, tokens, models, out_dir, context):
    name = sorted(path.stem for path in tokens.glob("test.*.bin"))[0]
    ids = torch.from_numpy(read_tokens(tokens, name).ids.astype("int64"))[:config.held_out_tokens]
    columns = {}
    for model, directory in models.items():
        table = open_model(directory, torch.device("cpu")).model.table
        columns[model] = {"bits_per_character": float(-table[ids[:-1], ids[1:]].mean() / math.log(2))}
    return write_evaluation(columns, Pictures(out_dir), out_dir)
'''

PRESET = '''
laptop:
  collect: {sources: {random: {kind: random_text, documents: 60, characters: 400}}, validation_fraction: 0.1,
            test_fraction: 0.2}
  bigram_tokens: {vocab_size: 259, extra_sources: []}
  promote: {gates: {learns: {figure: bigram/bits_per_character, comparison: "<=", bound: 8.1}}}
smoke: {}
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """An installed package that brings a family, as pip would leave it on the path."""
    root = tmp_path_factory.mktemp("site")
    (root / "bigrams").mkdir()
    for name, text in (("__init__.py", FAMILY), ("core.py", CORE), ("evaluation.py", EVALUATION),
                       ("bigrams.yaml", PRESET)):
        (root / "bigrams" / name).write_text(text)
    info = root / "bigrams-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bigrams\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("bigrams\n")
    (info / "RECORD").write_text("bigrams/__init__.py,,\nbigrams/core.py,,\n")
    (info / "entry_points.txt").write_text("[genai_core.families]\nbigrams = bigrams:FAMILY\n"
                                           "[genai_core.kinds]\nbigram = bigrams.core:open_bigram\n")
    return root


@pytest.fixture(scope="module")
def genai(package, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {"GENAI_HOME": str(home), "COLUMNS": "200",
                    "PYTHONPATH": os.pathsep.join([str(package), str(REPOSITORY)])}

    def call(*command):
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, cwd=REPOSITORY, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call.home = home
    return call


@pytest.mark.slow
def test_a_family_of_an_installed_package_runs_registers_chats_and_generates(genai):
    command = ("-m", "flows.cli.command")
    assert "5 tasks executed" in (first := genai(*command, "run", "--family", "bigrams", "--preset", "smoke")) or \
        "6 tasks executed" in first
    assert "0 tasks executed" in genai(*command, "run", "--family", "bigrams", "--preset", "smoke")
    (row,) = json.loads(genai(*command, "models", "--json"))
    assert row["stage"] == "bigram" and row["aliases"] == ["champion", "candidate"] and row["gates"] == "passed"
    assert len(genai(*command, "generate", "bigrams", "--prompt", "a", "--tokens", "5").strip()) == 5
    champion = "models:/genai-bigram@champion"
    assert len(genai(*command, "chat", champion, "--question", "a", "--tokens", "5").strip()) == 5
    assert "bigrams" in genai(*command, "families")
    served = ("import os, mlflow; mlflow.set_tracking_uri('sqlite:///' + os.environ['GENAI_HOME'] + '/mlflow.db');"
              "model = mlflow.pyfunc.load_model('models:/genai-bigram@champion');"
              "print(len(model.predict(['a'], params={'max_new_tokens': 4})[0]))")
    assert genai("-c", served).split()[-1] == "4"
    requirements = next(Path(genai.home).rglob("requirements.txt")).read_text()
    assert "bigrams==1.2" in requirements and "torch==" in requirements


@pytest.mark.slow
def test_its_code_is_part_of_the_keys_of_the_stages_that_run_it_and_of_no_other(genai):
    code = """
import json, sys
from pathlib import Path
from tasks.catalog import family_named
from tasks.store.artifacts import Artifact, read_manifest
from tasks.pipeline import PipelineRun
from tasks.store.workspace import Workspace
home = Workspace.current()
for path in sorted(home.root.glob("*/*/*/manifest.json")):
    manifest = read_manifest(path.parent)
    print(manifest["stage"], " ".join(name for name in manifest["code"] if "bigrams" in name))
"""
    keyed = dict(line.partition(" ")[::2] for line in genai("-c", code).splitlines())
    assert keyed["bigram"] == "bigrams.core"
    assert keyed["evaluate"] == "bigrams.core bigrams.evaluation"      # by the kind of the model that it opens
    assert keyed["collect"] == keyed["bigram_tokens"] == ""
