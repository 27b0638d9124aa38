"""The gold reward: an independent measure of what RLHF set out to raise, which nothing was ever trained against.

A policy that is trained against a reward model learns what the model mistakes for good (Gao et al. 2023, "Scaling laws
for reward model overoptimization"), so its own reward model cannot tell whether it became better. This measure is of
another kind, from other labels, and takes off for text that repeats itself or that the base model finds unlikely: who
shouts praise loses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from tokenizers import Tokenizer
from torch import Tensor

from genai_core.config.training import RlhfConfig
from genai_core.data.batches import pad
from genai_core.data.instructions import labelled_reviews, opening_and_continuation, review_openings
from genai_core.data.splits import fingerprint
from genai_core.data.tables import read_table
from genai_core.models.language_model import LanguageModel

MAX_SENTIMENT = 3.0
"""Deviations of sentiment, up or down, beyond which more counts nothing."""
LEAST_QUALITY = -10.0
"""Most deviations that repetition or unlikely words can take off each."""

Likelihood = Callable[[list[str], list[str]], np.ndarray]
"""Openings and answers to the mean log-probability of each answer's tokens after its opening."""


@dataclass(frozen=True)
class Standard:
    """Means and standard deviations of the three parts, and of their sum, over the answers of the reference."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    mean: float
    deviation: float


class GoldReward:
    """Sentiment by TF-IDF and logistic regression, less what repetition and unlikely words take off.

    With z the deviations from the reference's answers:
    g = clip(z_sentiment) + min(0, z_distinct) + min(0, z_likelihood), in standard deviations of the reference's g
    around its mean.
    """

    def __init__(self, texts: list[str], labels: list[int], likelihood: Likelihood):
        self.classifier: Pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=100_000),
            LogisticRegression(C=10, max_iter=200))
        self.classifier.fit(texts, labels)
        self.likelihood = likelihood

    def standard(self, openings: list[str], answers: list[str]) -> Standard:
        """The scale that scores are given on: that of these answers, the instruct model's own."""
        parts = self._parts(openings, answers)
        means, deviations = parts.mean(0), np.maximum(parts.std(0), 1e-6)
        scores = _combined((parts - means) / deviations)
        return Standard(tuple(means.tolist()), tuple(deviations.tolist()), float(scores.mean()),
                        max(float(scores.std()), 1e-6))

    def score(self, openings: list[str], answers: list[str], standard: Standard) -> np.ndarray:
        """Scores (N,) of answers: the reference's mean is 0, its standard deviation 1."""
        z = (self._parts(openings, answers) - np.array(standard.means)) / np.array(standard.deviations)
        z[[not answer.strip() for answer in answers]] = LEAST_QUALITY      # silence is no answer
        return (_combined(z) - standard.mean) / standard.deviation

    def _parts(self, openings: list[str], answers: list[str]) -> np.ndarray:
        """(N, 3): log-odds of praise, share of distinct word pairs, mean log-probability of the tokens."""
        return np.stack([self.classifier.decision_function(answers), [distinct_pairs(answer) for answer in answers],
                         self.likelihood(openings, answers)], axis=1)


def _combined(z: np.ndarray) -> np.ndarray:
    sentiment = np.clip(z[:, 0], -MAX_SENTIMENT, MAX_SENTIMENT)
    return np.asarray(sentiment + np.clip(z[:, 1:], LEAST_QUALITY, 0).sum(1))


def distinct_pairs(text: str) -> float:
    """Share of the word pairs of a text that are different ones (distinct-2, Li et al. 2016); 1 for a single word."""
    words = text.lower().split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else float(bool(words))


def base_likelihood(model: LanguageModel, tokenizer: Tokenizer, device: torch.device, batch_size: int = 64
                    ) -> Likelihood:
    """The likelihood under a base model, which reads opening and answer as plain text."""

    @torch.no_grad()
    def likelihood(openings: list[str], answers: list[str]) -> np.ndarray:
        means: list[Tensor] = []
        for first in range(0, len(answers), batch_size):
            heads = [tokenizer.encode(opening, add_special_tokens=False).ids
                     for opening in openings[first:first + batch_size]]
            tails = [tokenizer.encode(f" {answer}", add_special_tokens=False).ids
                     for answer in answers[first:first + batch_size]]
            rows = [(head + tail)[-model.context_length:] for head, tail in zip(heads, tails, strict=True)]
            ids, attention_mask = (tensor.to(device) for tensor in pad(rows, 0, "right"))
            counts = torch.tensor([min(len(tail), len(row) - 1) for tail, row in zip(tails, rows, strict=True)],
                                  device=device)
            log_probs = F.log_softmax(model(ids)[:, :-1].float(), dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
            from_end = attention_mask[:, 1:].flip(1).cumsum(1).flip(1)      # 1 at the last token, 2 at the one before
            answered = attention_mask[:, 1:] & (from_end <= counts[:, None])
            means.append((log_probs * answered).sum(1) / answered.sum(1).clamp(min=1))
        return torch.cat(means).cpu().double().numpy()

    return likelihood


def gold_labels(cleaned: Path, rlhf: RlhfConfig) -> tuple[list[str], list[int]]:
    """Labelled training reviews, and their labels, that RLHF has nothing of: no text that people rated for the reward
    model, and none whose opening is a prompt."""
    rated = {fingerprint(row["text"]) for row in read_table(cleaned, "ratings")}
    prompts = set(review_openings(cleaned, "train", rlhf.prompt_words, rlhf.seed)[:rlhf.prompts])
    kept = []
    for row in labelled_reviews(cleaned, "train"):
        pair = opening_and_continuation(row["text"], rlhf.prompt_words)
        if fingerprint(row["text"]) not in rated and not (pair and pair[0] in prompts):
            kept.append(row)
    return [row["text"] for row in kept], [row["label"] for row in kept]
