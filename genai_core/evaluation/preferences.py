"""How well scores order what people judged: pair accuracy and calibration, beside a baseline."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genai_core.data.instruction.judgements import Judged, Judgements, text_of

Scorer = Callable[[list[str]], np.ndarray]
"""Texts, or what the assistant says in conversations, to a score of each."""
MARGINS = (1, 2)
"""Differences of ratings, at least, of the pairs on which accuracy is measured beside that of all pairs."""


MOST_RATINGS = 4000
"""Of more ratings a random choice of so many is compared with each other: every two take memory."""


def pair_indices(ratings: np.ndarray, min_gap: float, max_pairs: int = 200_000, seed: int = 0
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Indices (better, worse) of pairs whose ratings differ by at least `min_gap`; a random subset of many."""
    generator = np.random.default_rng(seed)
    some = np.sort(generator.permutation(len(ratings))[:MOST_RATINGS])
    better, worse = np.nonzero(ratings[some][:, None] - ratings[some][None, :] >= min_gap)
    if len(better) > max_pairs:
        chosen = generator.choice(len(better), max_pairs, replace=False)
        better, worse = better[chosen], worse[chosen]
    return some[better], some[worse]


def pair_accuracy(scores: np.ndarray, ratings: np.ndarray, min_gap: float) -> float:
    """Share of the pairs of `min_gap` in which the text that people rated higher scores higher; a tie counts half.

    NaN when there are no pairs.
    """
    better, worse = pair_indices(ratings, min_gap)
    margins = scores[better] - scores[worse]
    return float(((margins > 0) + 0.5 * (margins == 0)).mean()) if len(better) else float("nan")


def judged_accuracy(scores: np.ndarray, judged: Sequence[Judged], min_gap: float) -> float:
    """`pair_accuracy` of what may be compared with each other, ratings from a gap of `min_gap` on: the mean over
    sources, each over its pairs. NaN when there are none."""
    by_source: dict[str, list[float]] = {}
    by_group: dict[str, list[int]] = {}
    for index, each in enumerate(judged):
        by_group.setdefault(each.group, []).append(index)
    for members in by_group.values():
        ratings = np.array([judged[index].rating for index in members])
        accuracy = pair_accuracy(scores[members], ratings, judged[members[0]].least_gap(min_gap))
        if not np.isnan(accuracy):
            by_source.setdefault(judged[members[0]].source, []).append(accuracy)
    return float(np.mean([np.mean(values) for values in by_source.values()])) if by_source else float("nan")


def calibration_error(scores: np.ndarray, ratings: np.ndarray, min_gap: float, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) of sigmoid(score difference) as the probability that the first
    text is the better one, over pairs in random order."""
    better, worse = pair_indices(ratings, min_gap)
    return pair_calibration_error(scores[better], scores[worse], bins)


def pair_calibration_error(better: np.ndarray, worse: np.ndarray, bins: int = 10) -> float:
    """The same of given pairs, by the scores of the better and of the worse one. NaN where there are none."""
    if not len(better):
        return float("nan")
    flip = np.random.default_rng(0).random(len(better)) < 0.5
    difference = np.where(flip, worse - better, better - worse)
    predicted, right = 1 / (1 + np.exp(-difference)), ~flip
    number = np.minimum((predicted * bins).astype(int), bins - 1)
    return float(sum((number == index).mean() * abs(predicted[number == index].mean() - right[number == index].mean())
                     for index in range(bins) if (number == index).any()))


def judgement_figures(scores: np.ndarray, judged: Judgements, train: Judgements, min_gap: float) -> dict[str, float]:
    """How well `scores` order what people judged, as `source/figure`, beside TF-IDF on the judgements of `train`; and
    the means of accuracy and baseline over the sources."""
    figures: dict[str, float] = {}
    rated = {each.source for each in judged.rated}
    score_of = {id(each): score for each, score in zip(judged.all, scores.tolist(), strict=True)}
    for source in judged.sources:
        known, asked = train.of(source), judged.of(source)
        its_scores = np.array([score_of[id(each)] for each in asked])
        if source in rated:
            found = _rating_figures(its_scores, known, asked, asked[0].least_gap(min_gap))
        else:
            found = _preference_figures(its_scores, known, asked)
        figures |= {f"{source}/{name}": value for name, value in found.items() if not np.isnan(value)}
    for name in ("accuracy", "baseline_accuracy"):
        values = [figures[f"{source}/{name}"] for source in judged.sources if f"{source}/{name}" in figures]
        figures |= {name: float(np.mean(values))} if values else {}
    return figures


def _rating_figures(scores: np.ndarray, known: list[Judged], asked: list[Judged], min_gap: float) -> dict[str, float]:
    ratings = np.array([each.rating for each in asked])
    lengths = np.array([len(text_of(each.subject)) for each in asked])
    baseline = tfidf_ridge(known)(texts_of(asked))
    figures = {}
    for prefix, given in (("", scores), ("baseline_", baseline)):
        figures[f"{prefix}accuracy"] = pair_accuracy(given, ratings, min_gap)
        figures |= {f"{prefix}accuracy_margin_{gap}": pair_accuracy(given, ratings, float(gap)) for gap in MARGINS}
    return figures | {
        "calibration_error": calibration_error(scores, ratings, min_gap),
        "rating_correlation": correlation(scores, ratings), "length_correlation": correlation(scores, lengths),
        "rating_length_correlation": correlation(ratings, lengths), "score_deviation": float(scores.std()),
        "rated": len(asked)}


def _preference_figures(scores: np.ndarray, known: list[Judged], asked: list[Judged]) -> dict[str, float]:
    lengths = np.array([len(text_of(each.subject)) for each in asked])
    baseline = tfidf_preferences(known)(texts_of(asked))
    longer = np.sign(lengths[0::2] - lengths[1::2])      # by the chosen answer
    return {"accuracy": judged_accuracy(scores, asked, 1.0), "baseline_accuracy": judged_accuracy(baseline, asked, 1.0),
            "calibration_error": pair_calibration_error(scores[0::2], scores[1::2]),
            "length_correlation": correlation(scores[0::2] - scores[1::2], lengths[0::2] - lengths[1::2]),
            "longer_preferred": float((longer + 1).mean() / 2), "score_deviation": float(scores.std()),
            "preferences": len(asked) // 2}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; NaN where one of the two does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and a.std() and b.std() else float("nan")


def texts_of(judged: list[Judged]) -> list[str]:
    return [text_of(each.subject) for each in judged]


def tfidf_ridge(train: list[Judged]) -> Scorer:
    """The baseline of ratings: ridge regression of the rating on TF-IDF weights of words and word pairs."""
    from sklearn.linear_model import Ridge

    if not (fitted := _fitted_features(train)):
        return _nothing
    vectorizer, features = fitted
    model = Ridge(alpha=1.0).fit(features, [each.rating for each in train])
    return lambda texts: np.asarray(model.predict(vectorizer.transform(texts)))


def tfidf_preferences(train: list[Judged]) -> Scorer:
    """The baseline of preferences: logistic regression on the difference of the TF-IDF weights of the two answers,
    which come one after the other."""
    from sklearn.linear_model import LogisticRegression

    if not (fitted := _fitted_features(train)):
        return _nothing
    vectorizer, features = fitted
    differences = features[0::2] - features[1::2]
    signs = np.where(np.arange(differences.shape[0]) % 2, -1, 1)      # every other pair the other way round
    if len(signs) < 2:
        return _nothing
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=500)
    model.fit(differences.multiply(signs[:, None]).tocsr(), signs)
    return lambda texts: np.asarray(model.decision_function(vectorizer.transform(texts)))


def _nothing(texts: list[str]) -> np.ndarray:
    return np.zeros(len(texts))


def _fitted_features(train: list[Judged]) -> Any:
    """What gives the TF-IDF weights of words and word pairs, and those of `train`; nothing where it has no word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(train) > 100 else 1)
    try:
        return vectorizer, vectorizer.fit_transform(texts_of(train))
    except ValueError:
        return None
