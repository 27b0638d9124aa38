"""The evaluation of models that turn one text into another: chrF and BLEU with sacrebleu, by length, and their
attention."""

from pathlib import Path

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from genai_core.context import Context, Result
from genai_core.evaluation.baselines.simple import majority_accuracy, tfidf_accuracy
from genai_core.families.encoder_decoder.config import PairEvaluationConfig
from genai_core.families.encoder_decoder.generation import PairModel, open_pair_model
from genai_core.families.encoder_decoder.pairs import PREFIXES, Pair, read_pairs
from genai_core.families.labels import LABELS
from genai_core.families.report import Pictures, write_evaluation
from genai_core.hardware import choose_device
from genai_core.pictures import figure_and_axes, save_picture

ATTENDED = "I don't know where he bought this old book."
"""The sentence whose attention is drawn."""


def run(config: PairEvaluationConfig, *, data: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of each model on each task, those of copying, TF-IDF and the majority, and the pictures."""
    reporter = context.reporter
    device = choose_device(context.device)
    pairs: dict[str, list[Pair]] = {}
    for pair in read_pairs(data, "test"):
        pairs.setdefault(pair.task, []).append(pair)
    pairs = {task: rows[::-(-len(rows) // config.pairs)] for task, rows in pairs.items()}      # they may be sorted
    pictures, columns = Pictures(out_dir), dict[str, dict[str, float]]()
    samples: dict[str, list[dict[str, str]]] = {}
    loaded = {name: open_pair_model(directory, device) for name, directory in models.items()}
    for name, model in loaded.items():
        columns[name], samples[name] = {}, []
        for task, rows in pairs.items():
            answers = model.answer([pair.source for pair in rows])
            columns[name] |= _figures(task, rows, answers, config)
            samples[name] += [{"task": task, "asked": pair.source[:200], "expected": pair.target, "answered": answer}
                              for pair, answer in list(zip(rows, answers, strict=True))[:config.samples]]
        columns[name]["parameters"] = sum(parameter.numel() for parameter in model.model.parameters())
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in columns[name].items()))
    columns["baseline"] = _baselines(pairs, read_pairs(data, "train"), config)
    if "translate" in pairs:
        _draw_lengths(columns, pictures)
        _draw_attention(loaded, pairs["translate"][0], pictures)
    return write_evaluation(columns, pictures, out_dir, samples)


def _figures(task: str, pairs: list[Pair], answers: list[str], config: PairEvaluationConfig) -> dict[str, float]:
    if task == "sentiment":
        correct = sum(answer == pair.target for pair, answer in zip(pairs, answers, strict=True))
        return {"sentiment_accuracy": correct / len(pairs)}
    targets = [pair.target for pair in pairs]
    if task == "title":
        exact = sum(answer == target for answer, target in zip(answers, targets, strict=True)) / len(pairs)
        return {"title_chrf": _chrf(answers, targets), "title_exact_match": exact}
    figures = {"chrf": _chrf(answers, targets),
               "bleu": BLEU(effective_order=True).corpus_score(answers, [targets]).score}
    for name, group in _by_length(pairs, config.length_bounds).items():
        figures[f"chrf_{name}"] = _chrf([answers[number] for number in group], [targets[number] for number in group])
    return figures


def _chrf(answers: list[str], targets: list[str]) -> float:
    return CHRF().corpus_score(answers, [targets]).score if targets else float("nan")


def _by_length(pairs: list[Pair], bounds: tuple[int, ...]) -> dict[str, list[int]]:
    """Indices of the pairs in each group of lengths, counted in words of the source without the name of its task."""
    groups: dict[str, list[int]] = {}
    edges = [1, *bounds]
    lengths = [len(_plain_source(pair).split()) for pair in pairs]
    for number, edge in enumerate(edges):
        last = edges[number + 1] - 1 if number + 1 < len(edges) else None
        inside = [index for index, words in enumerate(lengths) if edge <= words <= (last or words)]
        if inside:
            groups[f"{edge}_to_{last}_words" if last else f"from_{edge}_words"] = inside
    return groups


def _plain_source(pair: Pair) -> str:
    return pair.source.removeprefix(PREFIXES["translate"])


def _baselines(pairs: dict[str, list[Pair]], train: list[Pair], config: PairEvaluationConfig) -> dict[str, float]:
    """Figures of copying the source or, for titles, its first words; for labels, of the majority and of TF-IDF."""
    figures: dict[str, float] = {}
    for task, rows in pairs.items():
        if task == "sentiment":
            labels = [LABELS.index(pair.target) for pair in rows]
            known = [pair for pair in train if pair.task == task]
            figures |= {"sentiment_accuracy": tfidf_accuracy(
                [pair.source for pair in known], [LABELS.index(pair.target) for pair in known],
                [pair.source for pair in rows], labels), "majority_accuracy": majority_accuracy(labels)}
        elif task == "title":      # the first words are the best guess that needs no model
            figures |= _figures(task, rows, [" ".join(pair.source.removeprefix(PREFIXES["title"]).split()[:3])
                                             for pair in rows], config)
        else:
            figures |= _figures(task, rows, [_plain_source(pair) for pair in rows], config)
    return figures


def _draw_lengths(columns: dict[str, dict[str, float]], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(6, 3)
    for column, figures in columns.items():
        groups = [name for name in figures if name.startswith("chrf_")]
        axes.plot([name.removeprefix("chrf_").replace("_", " ") for name in groups], [figures[name] for name in groups],
                  marker="o", markersize=4, label=column)
    axes.set_ylabel("chrF")
    axes.set_xlabel("length of the English sentence")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, pictures.add("by-length", "chrF of held-out translations by the length of the sentence"))


def _draw_attention(models: dict[str, PairModel], example: Pair, pictures: Pictures) -> None:
    """Draw the attention of each model that has one, on a sentence of our own with the task's prefix, if it has one."""
    prefix = PREFIXES["translate"] if example.source.startswith(PREFIXES["translate"]) else ""
    source = prefix + ATTENDED
    for name, model in models.items():
        attended = model.attention(source)
        if attended is None:
            continue
        tokens, answer, attention = attended
        figure, axes = figure_and_axes(1.5 + 0.3 * len(tokens), 1.2 + 0.26 * len(answer))
        axes.imshow(attention.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(tokens)), tokens, rotation=60, fontsize=8)
        axes.set_yticks(range(len(answer)), answer, fontsize=8)
        save_picture(figure, pictures.add(f"attention-{name}", f"{name}: where each word of the translation (rows) "
                                                               "looked in the sentence (columns)"))
