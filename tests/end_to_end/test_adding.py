"""Adding a stage, a source and a metric takes the places that docs/architecture.md names, and no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.store.workspace import REPOSITORY
from tests.end_to_end.conftest import states
from tests.end_to_end.helpers import clean_environment

pytestmark = pytest.mark.slow

STAGE = '''"""The stage statistics: how many words there are to train on."""

import json

from genai_core.config.pipeline import StatisticsConfig
from genai_core.context import Result
from genai_core.data.shards.tables import read_table


def run(config: StatisticsConfig, *, cleaned, out_dir, context):
    words = sum(len(row["text"].split()) for row in read_table(cleaned, "documents", split="train"))
    (out_dir / "statistics.json").write_text(json.dumps({"words": words // config.unit}))
    return Result({"words": words // config.unit})
'''

EDITS = {
    # a stage: its function above, its section, its declaration
    "genai_core/config/pipeline.py": [
        ("class PipelineConfig(Config):",
         'class StatisticsConfig(Config):\n    """Count words."""\n\n    unit: int = 1\n'
         '    """Words that count as one."""\n\n\nclass PipelineConfig(Config):'),
        ("    tokenize: TokenizeConfig",
         "    statistics: StatisticsConfig = StatisticsConfig()\n    tokenize: TokenizeConfig"),
        ('"collect", "clean", "tokenize", ', '"collect", "clean", "statistics", "tokenize", '),
        ('    "adopt": (), ', '    "adopt": (), "statistics": ("clean",), ')],
    "tasks/language_model.py": [
        ("tokenize = Stage(", 'statistics = Stage("statistics", "genai_core.stages.statistics", "report", '
                             'settings={"config": "statistics"},\n                   inputs={"cleaned": "clean"}, '
                             'describe="count words")\n\ntokenize = Stage('),
        ("STAGES = (adopt, collect, clean, ", "STAGES = (adopt, collect, clean, statistics, ")],
    # a source: its reader, its name; the preset of the run names it
    "genai_core/data/sources/readers.py": [
        ("READERS: dict",
         'def read_names(archive: Archive) -> Iterator[Record]:\n    """The names of the files."""\n'
         '    for name in archive.names():\n        yield "documents", {"text": f"This is the file {name} of it all."}'
         '\n\n\nREADERS: dict'),
        ('    "wikitext": read_wikitext,', '    "wikitext": read_wikitext,\n    "names": read_names,')],
    "genai_core/config/data.py": [('Literal["wikitext", ', 'Literal["wikitext", "names", '),
                                  ('    "wikitext": ("documents",), ',
                                   '    "names": ("documents",), "wikitext": ("documents",), ')],
    # a metric: its name, how answers are judged by it; a task of the preset asks for it
    "genai_core/config/tasks.py": [('"chrf", "bits_per_byte"]', '"chrf", "bits_per_byte", "wordiness"]')],
    "genai_core/evaluation/tasks.py": [
        ("JUDGES: dict", 'def wordiness(answers: list[str], examples: list[Example]) -> tuple[float, Outcomes]:\n'
                         '    """Mean number of words of the answers."""\n'
                         '    words = [float(len(answer.split())) for answer in answers]\n'
                         '    return sum(words) / len(words), alike(words)\n\n\nJUDGES: dict'),
        ('"chrf": chrf}', '"chrf": chrf, "wordiness": wordiness}')],
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with the edits, and a command that runs it."""
    folder = tmp_path_factory.mktemp("extended")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True,
                           text=True, check=True).stdout.splitlines()
    kept = [name for name in files if (REPOSITORY / name).is_file() and not name.startswith("docs/")]
    subprocess.run(["cp", "--parents", *kept, str(folder)], cwd=REPOSITORY, check=True)
    (folder / "genai_core" / "stages" / "statistics.py").write_text(STAGE)
    for name, edits in EDITS.items():
        path = folder / name
        text = path.read_text()
        for before, after in edits:
            assert text.count(before) == 1, f"{name}: {before}"
            text = text.replace(before, after)
        path.write_text(text)
    (folder / "mine.yaml").write_text(
        "extends: smoke\ncollect: {sources: {file-names: {kind: archive, package: chatterbot-corpus==1.3.3, "
        "sha256: 86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154, reader: names, licence: none}}}\n"
        "tasks: {trivia: {metrics: [exact_match, wordiness]}}\n")
    home = folder / "home"
    home.mkdir()

    def genai(*arguments):
        done = subprocess.run([sys.executable, "-m", "flows.cli.command", *arguments], cwd=folder, text=True,
                              env=clean_environment(GENAI_HOME=str(home), PYTHONPATH=str(folder)), capture_output=True,
                              stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    genai.home = home
    return genai


def test_what_was_added_runs_is_cached_and_shows(extended):
    ran = states(extended("run", "--preset", "mine.yaml"))
    assert ran["statistics"] == "Completed" and ran["promote"] == "Completed"
    again = states(extended("run", "--preset", "mine.yaml", "--set", "statistics.unit=10"))
    assert [name for name, state in again.items() if state != "Cached"] == ["statistics"]
    home = Path(extended.home)
    card = json.loads(next(home.glob("data/collect/*/data_card.json")).read_text())
    assert card["file-names"]["rows"] > 10
    table = json.loads(next(home.glob("reports/evaluate/*/evaluation.json")).read_text())
    assert all("trivia_wordiness" in table[column] for column in ("base", "instruct", "int8"))
    report = max(home.glob("reports/*/report.md"), key=lambda path: path.stat().st_mtime).read_text()
    assert "| statistics |" in report and "| trivia_wordiness |" in report
