"""The evaluation of models of ABC notation: bits per character, and how many of their tunes music21 can read."""

import re
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer

from genai_core.context import Context, Result
from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.errors import InputError
from genai_core.families.characters import HeldOutCharacters, read_documents
from genai_core.families.music.config import TuneEvaluationConfig
from genai_core.families.recurrent import evaluation as recurrent
from genai_core.families.recurrent.config import CharacterEvaluationConfig
from genai_core.families.report import Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.inference.generate import generate
from genai_core.inference.sampling import Sampling
from genai_core.inference.text import open_text_model
from genai_core.models.language_model import LanguageModel
from genai_core.pictures import figure_and_axes, save_picture

WHOLE_BARS = 0.8
"""Share of a tune's inner bars that have to be as long as its metre says for the tune to count as in time."""
WHOLE = 1e-6
"""A bar whose surplus is below this, in quarters, is as long as its metre says."""
MOST_QUAVERS = 4
"""Bars that miss their length by more quavers than this are drawn as if by this many."""
COMMON = {"C": "4/4", "C|": "2/2"}
"""The metres that ABC notation has letters for."""


def run(config: TuneEvaluationConfig, *, tokens: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """The evaluation of characters, and for each model and for held-out tunes the share that parses and is in time.

    Raises InputError without music21.
    """
    reporter = context.reporter
    try:
        import music21  # noqa: F401
    except ImportError:
        raise InputError("reading tunes needs music21: pip install -c constraints.txt -e '.[music]'") from None
    device = choose_device(context.device)
    shared = CharacterEvaluationConfig.model_validate(config.model_dump(exclude={"tunes"}))
    pictures = Pictures(out_dir)
    columns, samples = recurrent.measure(shared, tokens, models, pictures, reporter, device)
    read = {}
    for name, directory in models.items():
        opened = open_text_model(directory, device)
        model, tokenizer = opened.model, opened.tokenizer
        read[name] = list(map(_surplus, _sample(model, tokenizer, config, device)))
        columns[name] |= _shares(read[name])
        reporter.note(f"{name}: {columns[name]['parsed']:.0%} of {config.tunes} tunes parse, "
                      f"{columns[name]['in_time']:.0%} are in time")
    read["real"] = list(map(_surplus, _held_out(tokens, config.tunes)))
    columns["real"] = _shares(read["real"])
    _draw(read, pictures)
    return write_evaluation(columns, pictures, out_dir, samples)


def _sample(model: LanguageModel, tokenizer: Tokenizer, config: TuneEvaluationConfig, device: torch.device
            ) -> list[str]:
    """Tunes that continue the prompt, up to their end."""
    prompt = tokenizer.encode(config.prompt, add_special_tokens=False).ids
    end = token_id(tokenizer, END_OF_TEXT)
    room = config.sample_tokens if model.unbounded_context else model.context_length - len(prompt)
    completions = generate(model, [prompt] * config.tunes, min(room, config.sample_tokens), {end}, pad_id=end,
                           sampling=Sampling(config.temperature), seeds=list(range(config.tunes)))
    return [config.prompt + tokenizer.decode(ids).split(END_OF_TEXT)[0] for ids in completions.unpadded()]


def _held_out(tokens: Path, count: int) -> list[str]:
    held_out = HeldOutCharacters(tokens, 1)
    return [held_out.tokenizer.decode(ids) for ids in read_documents(held_out.file)[:count]]


def _shares(read: list[list[float] | None]) -> dict[str, float]:
    in_time = [bars is not None and sum(abs(surplus) < WHOLE for surplus in bars) >= WHOLE_BARS * len(bars)
               for bars in read]
    return {"parsed": sum(bars is not None for bars in read) / len(read), "in_time": sum(in_time) / len(read)}


def _surplus(tune: str) -> list[float] | None:
    """Surplus of each inner bar over the length that its metre says, in quarters; None for a tune that music21 cannot
    read, or that has less than two bars or four notes."""
    import music21

    try:
        score = music21.converter.parseData(tune, format="abc")
        bars = list(score.recurse().getElementsByClass(music21.stream.Measure))
        notes = list(score.recurse().notes)
        if len(bars) < 2 or len(notes) < 4:
            return None
        metres = {COMMON.get(metre, metre) for metre in re.findall(r"M: *([^ \]\n]+)", tune)}
        surplus = list[float]()
        for bar in bars:
            if bar.timeSignature and bar.timeSignature.ratioString not in metres:
                # the reader cuts a bar that is too long, and gives the rest a metre of its own
                surplus[-1] += float(bar.duration.quarterLength)
            else:
                surplus.append(float(bar.duration.quarterLength - bar.barDuration.quarterLength))
        return surplus[1:-1] or surplus
    except Exception:      # the reader raises whatever it stumbles over; that is the answer
        return None


def _draw(read: dict[str, list[list[float] | None]], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(6, 3)
    quavers = range(-MOST_QUAVERS, MOST_QUAVERS + 1)
    for name, tunes in read.items():
        counted = Counter(max(-MOST_QUAVERS, min(MOST_QUAVERS, round(2 * surplus)))
                          for bars in tunes for surplus in bars or ())
        total = max(1, counted.total())
        axes.plot(quavers, [counted[number] / total for number in quavers], marker="o", markersize=3, label=name)
    axes.set_xticks(quavers)
    axes.set_xlabel("quavers that a bar is too long")
    axes.set_ylabel("share of the bars")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("bars", "by how many quavers the bars of tunes miss the length that the metre "
                                              "asks for; the outermost: that many or more"))
