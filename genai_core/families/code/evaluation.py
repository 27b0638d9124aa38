"""The evaluation of language models of Python code: bits, lines, functions, and HumanEval's problems."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from genai_core.context import Context, Result
from genai_core.data.chat import plain
from genai_core.data.shards.tables import read_table
from genai_core.errors import InputError
from genai_core.families.characters import HeldOutCharacters
from genai_core.families.code.completions import (
    Question,
    body,
    complete,
    evenly,
    functions,
    is_python,
    next_lines,
    parses,
)
from genai_core.families.code.config import CodeEvaluationConfig
from genai_core.families.code.token_kinds import bits_by_kind
from genai_core.families.report import Columns, Pictures, Samples, write_evaluation
from genai_core.hardware import choose_device
from genai_core.inference.text import open_text_model
from genai_core.pictures import figure_and_axes, save_picture
from genai_core.sandbox import passes


def run(config: CodeEvaluationConfig, *, tokens: Path, collected: Path, models: dict[str, Path], out_dir: Path,
        context: Context) -> Result:
    """Write the figures of each model, of n-grams and of looking lines up, and of what people wrote (`real`)."""
    reporter = context.reporter
    device = choose_device(context.device)
    held_out = HeldOutCharacters(tokens, config.held_out_tokens)
    train, test = ([plain(row["text"]) for row in read_table(collected, "documents", split=split)]
                   for split in ("train", "test"))
    test = [text for text in test if is_python(text)]
    lines, heads = next_lines(test, config.lines), functions(test, config.functions)
    problems = evenly(read_table(collected, "problems"), config.problems)
    if not (lines and heads and problems):
        raise InputError("collect.sources: code is measured by held-out lines of Python "
                         f"({len(lines)} found), by functions with a docstring ({len(heads)} found) and by problems "
                         f"({len(problems)} found)")
    pictures, columns, samples = Pictures(out_dir), Columns(), dict[str, Samples]()
    by_kind: dict[str, dict[str, tuple[float, int]]] = {}
    for name, directory in models.items():
        opened = open_text_model(directory, device)
        model, tokenizer = opened.model, opened.tokenizer
        next_lines_of = complete(model, tokenizer, [line.before for line in lines], config.line_tokens)
        bodies = complete(model, tokenizer, [head.before for head in heads], config.function_tokens)
        solutions = complete(model, tokenizer, [problem["prompt"] for problem in problems], config.function_tokens)
        columns[name] = {"bits_per_character": held_out.bits(model, device, overlap=True),
                         **_lines(lines, [text.split("\n")[0].rstrip() for text in next_lines_of]),
                         "parsed": sum(map(parses, heads, bodies)) / len(heads),
                         "pass_at_1": _pass_at_1(problems, list(map(body, solutions)), config.seconds),
                         "parameters": sum(parameter.numel() for parameter in model.parameters())}
        reporter.note(f"{name}: " + ", ".join(f"{figure} {value:.4g}" for figure, value in columns[name].items()))
        samples[name] = _samples(heads, bodies, "complete") + _samples(
            [Question(problem["prompt"], problem["solution"]) for problem in problems], solutions, "HumanEval")
        by_kind[name] = bits_by_kind(model, tokenizer, test, config.held_out_tokens, device)
    columns["baseline"] = {"bits_per_character": held_out.ngram_bits(config.ngram_order),
                           **_lines(lines, _looked_up(train, lines))}
    columns["real"] = {"parsed": sum(parses(head, _cut(head.expected, held_out.tokenizer, config.function_tokens))
                                     for head in heads) / len(heads),
                       "pass_at_1": _pass_at_1(problems, [problem["solution"] for problem in problems],
                                               config.seconds)}
    _draw(by_kind, pictures)
    return write_evaluation(columns, pictures, out_dir, samples)


def _lines(questions: list[Question], answers: list[str]) -> dict[str, float]:
    pairs = [(question.expected, answer) for question, answer in zip(questions, answers, strict=True)]
    return {"line_exact_match": sum(expected == answer for expected, answer in pairs) / len(pairs),
            "line_similarity": sum(SequenceMatcher(None, expected, answer, autojunk=False).ratio()
                                   for expected, answer in pairs) / len(pairs)}


def _looked_up(train: list[str], questions: list[Question]) -> list[str]:
    """Baseline: what most often followed the line before in training, indented as there; else that line again."""
    wanted = {question.before.rstrip("\n").split("\n")[-1].strip() for question in questions}
    followers: dict[str, Counter[tuple[int, str]]] = {line: Counter() for line in wanted}
    for text in train:
        lines = text.split("\n")
        for line, following in pairwise(lines):
            if line.strip() in wanted and following.strip():
                deeper = len(following) - len(following.lstrip()) - (len(line) - len(line.lstrip()))
                followers[line.strip()][deeper, following.strip()] += 1
    answers = []
    for question in questions:
        previous = question.before.rstrip("\n").split("\n")[-1]
        best = followers[previous.strip()].most_common(1)
        if not best:
            answers.append(previous.rstrip())
            continue
        (deeper, line), _ = best[0]
        answers.append(" " * (len(previous) - len(previous.lstrip()) + deeper) + line)
    return answers


def _pass_at_1(problems: list[dict[str, Any]], solutions: list[str], seconds: float) -> float:
    """Share of problems whose tests are passed by the one solution sampled for each (Chen et al. 2021)."""
    programs = [problem["prompt"] + solution for problem, solution in zip(problems, solutions, strict=True)]
    tests = [(problem["test"], f"check({problem['entry_point']})") for problem in problems]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(lambda each, its_tests: passes(each, seconds, its_tests), programs, tests)) / len(programs)


def _cut(text: str, tokenizer: Tokenizer, tokens: int) -> str:
    """The first `tokens` tokens of a text: as much as a model may write."""
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids[:tokens]) + "\n"


def _samples(questions: list[Question], answers: list[str], task: str, count: int = 2) -> Samples:
    return [{"task": task, "asked": question.before, "expected": question.expected, "answered": body(answer)}
            for question, answer in list(zip(questions, answers, strict=True))[:count]]


def _draw(bits: dict[str, dict[str, tuple[float, int]]], pictures: Pictures) -> None:
    figure, axes = figure_and_axes(6.4, 3)
    for number, (name, by_kind) in enumerate(bits.items()):
        rates = {kind: total / max(1, characters) for kind, (total, characters) in by_kind.items()}
        places = [index + number * 0.8 / len(bits) for index in range(len(rates))]
        axes.bar(places, list(rates.values()), width=0.8 / len(bits), label=name)
        axes.set_xticks(range(len(rates)), list(rates), fontsize=8)
    axes.set_ylabel("bits per character")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    save_picture(figure, pictures.add("kinds", "bits per character of held-out code, by what the character belongs to"))
