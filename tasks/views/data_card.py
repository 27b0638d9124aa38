"""What the cleaned data of a config is, for people: sources with lengths, languages, labels, removals and samples, and
what to think about before hours are spent on it. As a page, and as what `genai data` prints."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from genai_core.config.pipeline import PipelineConfig
from genai_core.data.clean.card import CARD

CHARACTERS_OF_A_TOKEN = 3.5
"""Assumed before the text is tokenized; a vocabulary of 4,096 gives about so many in English."""
SKEWED = 0.9
FEW_QUESTIONS = 100
BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Entry:
    """One source in one table."""

    source: str
    table: str
    splits: dict[str, int]
    characters: int
    lengths: dict[str, int]
    """Records by the power of two that their length in characters is below."""
    languages: dict[str, int]
    labels: dict[str, int]
    removed: dict[str, int]
    samples: list[str]
    other_labels: int = 0
    """Records with labels that are not among the commonest, which `labels` counts."""
    licence: str = ""
    origin: str = ""

    @property
    def rows(self) -> int:
        return sum(self.splits.values())

    @property
    def median_length(self) -> int:
        """Upper end of the bin of lengths in which the middle record is."""
        seen = 0
        for power, count in sorted((int(power), count) for power, count in self.lengths.items()):
            seen += count
            if 2 * seen >= self.rows:
                return 2**power
        return 0

    def longer_than(self, characters: float) -> int:
        """Number of records in the bins of lengths above so many characters."""
        return sum(count for power, count in self.lengths.items() if 2 ** (int(power) - 1) >= characters)

    @property
    def histogram(self) -> str:
        """Lengths as a row of bars, from the shortest to the longest bin."""
        counts = {int(power): count for power, count in self.lengths.items()}
        if not counts:
            return ""
        most = max(counts.values())
        heights = [counts.get(power, 0) / most for power in range(min(counts), max(counts) + 1)]
        return "".join(BARS[max(1, round(height * (len(BARS) - 1)))] if height else BARS[0] for height in heights)


@dataclass(frozen=True)
class DataCard:
    """The card of the data of a config."""

    entries: list[Entry]
    concerns: list[str]
    """What to think about, in sentences."""
    train_characters: int

    @property
    def tokens(self) -> int:
        """Training tokens to expect."""
        return round(self.train_characters / CHARACTERS_OF_A_TOKEN)


def data_card(config: PipelineConfig, collected: Path, cleaned: Path) -> DataCard:
    """The card from the artifacts of collect and clean."""
    origins = _json(collected / "data_card.json")
    entries = []
    for fields in _json(cleaned / CARD):
        origin = origins.get(fields["source"], {})
        entries.append(Entry(**fields, licence=origin.get("licence", ""), origin=origin.get("origin", "")))
    characters = _json(cleaned / "manifest.json")["metrics"].get("train_characters", 0)
    card = DataCard(entries, [], int(characters))
    card.concerns.extend(_concerns(config, card))
    return card


def write_page(card: DataCard, title: str, path: Path) -> None:
    """Write the card as one HTML page."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("data_card.html.jinja").render(card=card, title=title, bars=_bars)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _bars(entry: Entry) -> list[tuple[str, int, float]]:
    """Label, count and height in percent of each bar of the lengths."""
    counts = {int(power): count for power, count in entry.lengths.items()}
    most = max(counts.values(), default=1)
    powers = range(min(counts), max(counts) + 1) if counts else range(0)
    return [(f"under {2**power:,} characters", counts.get(power, 0), 100 * counts.get(power, 0) / most)
            for power in powers]


def _concerns(config: PipelineConfig, card: DataCard) -> list[str]:
    found = []
    for split in ("validation", "test"):
        if card.entries and not any(entry.splits.get(split) for entry in card.entries if entry.table == "documents"):
            found.append(f"no document is held out for {split}, so that a base model cannot be measured and a run ends "
                         f"after clean: raise collect.{split}_fraction, or name such rows in the column `split`")
    for entry in card.entries:
        found += _about_removals(entry) + _about_labels(entry)
        if entry.table in ("chats", "preferences", "ratings") and "instruct" in config.stage_names:
            limit = config.instruct.context_length * CHARACTERS_OF_A_TOKEN
            if long := entry.longer_than(limit):
                found.append(f"{entry.source}: some {long:,} of {entry.rows:,} {entry.table} are longer than "
                             f"instruct.context_length {config.instruct.context_length} and lose their beginning")
    for name, task in config.active_tasks.items():
        questions = sum(entry.splits.get("test", 0) for entry in card.entries
                        if entry.source in {source.partition("/")[0] for source in task.sources})
        if task.judged_by and 0 < questions < FEW_QUESTIONS:
            found.append(f"tasks.{name}: {questions} questions in the test split tell only large differences; bring "
                         "more, or raise collect.test_fraction")
    if card.tokens and config.pretrain.tokens > 4 * card.tokens:
        passes = config.pretrain.tokens / card.tokens
        found.append(f"pretrain.tokens {config.pretrain.tokens:,} are {passes:.0f} passes over the training text, of "
                     "which those beyond the fourth teach little (Muennighoff et al. 2023): add text, or lower it")
    return found


def _about_removals(entry: Entry) -> list[str]:
    gone = sum(entry.removed.values())
    found = []
    if gone > entry.rows:
        reason, count = max(entry.removed.items(), key=lambda item: item[1])
        found.append(f"{entry.source}: {gone:,} of {gone + entry.rows:,} {entry.table} were removed, {count:,} of them "
                     f"for {reason}")
    if shared := entry.removed.get("shared_with_held_out", 0):
        found.append(f"{entry.source}: {shared:,} {entry.table} to train on shared a long run of words with held-out "
                     "records and were removed")
    return found


def _about_labels(entry: Entry) -> list[str]:
    total = sum(entry.labels.values()) + entry.other_labels
    if not total:
        return []
    label, most = max(entry.labels.items(), key=lambda item: item[1])
    found = []
    if len(entry.labels) == 1:
        found.append(f"{entry.source}: every training record has the label {label!r}: there is nothing to tell apart")
    elif most > SKEWED * total:
        found.append(f"{entry.source}: {most / total:.0%} of the training records have the label {label!r}; always "
                     "saying it is as accurate")
    if once := [label for label, count in entry.labels.items() if count == 1]:
        found.append(f"{entry.source}: {len(once)} labels are there once, such as {once[0]!r}")
    return found


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
