"""The evaluation of models of ABC notation: bits per character, and how many of their tunes music21 can read."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from genai_core.config.recurrent import CharacterEvaluationConfig, TuneEvaluationConfig
from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.errors import InputError
from genai_core.evaluation import recurrent
from genai_core.evaluation.characters import HeldOutCharacters, read_documents
from genai_core.hardware import choose_device
from genai_core.inference.generate import Sampling, generate
from genai_core.inference.text import load_language_model
from genai_core.models.language_model import LanguageModel
from genai_core.reporter import Reporter
from genai_core.result import Result

WHOLE_BARS = 0.8
"""Share of a tune's inner bars that have to be as long as its metre says for the tune to count as in time."""


def run(config: TuneEvaluationConfig, *, tokens: Path, models: dict[str, Path], out_dir: Path, reporter: Reporter,
        device: str) -> Result:
    """The evaluation of characters, and for each model and for held-out tunes the share that parses and is in time.

    Raises InputError without music21.
    """
    try:
        import music21  # noqa: F401
    except ImportError:
        raise InputError("reading tunes needs music21: pip install 'genai-core[music]'") from None
    where = choose_device(device)
    shared = CharacterEvaluationConfig.model_validate(config.model_dump(exclude={"tunes"}))
    added: dict[str, dict[str, float]] = {}
    for name, directory in models.items():
        model, tokenizer = load_language_model(directory, where)
        added[name] = _shares(_write(model, tokenizer, config, where))
        reporter.note(f"{name}: {added[name]['parsed']:.0%} of {config.tunes} tunes parse, "
                      f"{added[name]['in_time']:.0%} are in time")
    added["real"] = _shares(_held_out(tokens, config.tunes))
    return recurrent.run(shared, tokens=tokens, models=models, out_dir=out_dir, reporter=reporter, device=device,
                         added=added)


def _write(model: LanguageModel, tokenizer: Tokenizer, config: TuneEvaluationConfig, device: torch.device) -> list[str]:
    prompt = tokenizer.encode(config.prompt, add_special_tokens=False).ids
    end = token_id(tokenizer, END_OF_TEXT)
    room = config.sample_tokens if model.reads_on else model.context_length - len(prompt)
    made = generate(model, [prompt] * config.tunes, min(room, config.sample_tokens), {end}, pad_id=end,
                    sampling=Sampling(config.temperature), generator=torch.Generator(device).manual_seed(0))
    return [config.prompt + tokenizer.decode(ids[mask].tolist()).split(END_OF_TEXT)[0]
            for ids, mask in zip(made.ids, made.mask, strict=True)]


def _held_out(tokens: Path, count: int) -> list[str]:
    held_out = HeldOutCharacters(tokens, 1)
    return [held_out.tokenizer.decode(ids) for ids in read_documents(held_out.file)[:count]]


def _shares(tunes: list[str]) -> dict[str, float]:
    read = [_bars(tune) for tune in tunes]
    return {"parsed": sum(bars is not None for bars in read) / len(tunes),
            "in_time": sum(bars is not None and bars >= WHOLE_BARS for bars in read) / len(tunes)}


def _bars(tune: str) -> float | None:
    """Share of the inner bars that are as long as the metre says; None for a tune that music21 cannot read, or that has
    no notes in at least two bars."""
    import music21

    try:
        score = music21.converter.parseData(tune, format="abc")
        bars = list(score.recurse().getElementsByClass(music21.stream.Measure))
        notes = list(score.recurse().notes)
        if len(bars) < 2 or len(notes) < 4:
            return None
        inner = bars[1:-1] or bars
        whole = [abs(bar.duration.quarterLength - bar.barDuration.quarterLength) < 1e-6 for bar in inner]
    except Exception:      # the reader raises whatever it stumbles over; that is the answer
        return None
    return sum(whole) / len(whole)
