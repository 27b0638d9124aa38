"""How well scores order texts as people did: pair accuracy and calibration, beside a baseline."""

from pathlib import Path

import numpy as np

from genai_core.data.tables import Rows, read_table


def rated_texts(cleaned: Path, split: str, sources: tuple[str, ...]) -> Rows:
    """The rated texts of a split that come from `sources`."""
    return [row for row in read_table(cleaned, "ratings", split=split) if row["source"] in sources]


def pair_indices(ratings: np.ndarray, min_gap: float, max_pairs: int = 200_000, seed: int = 0
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Indices (better, worse) of pairs whose ratings differ by at least `min_gap`; a random subset of many."""
    better, worse = np.nonzero(ratings[:, None] - ratings[None, :] >= min_gap)
    if len(better) > max_pairs:
        chosen = np.random.default_rng(seed).choice(len(better), max_pairs, replace=False)
        better, worse = better[chosen], worse[chosen]
    return better, worse


def pair_accuracy(scores: np.ndarray, ratings: np.ndarray, min_gap: float) -> float:
    """Share of the pairs of `min_gap` in which the text that people rated higher scores higher; a tie counts half.

    NaN when there are no pairs.
    """
    better, worse = pair_indices(ratings, min_gap)
    margins = scores[better] - scores[worse]
    return float(((margins > 0) + 0.5 * (margins == 0)).mean()) if len(better) else float("nan")


def calibration_error(scores: np.ndarray, ratings: np.ndarray, min_gap: float, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) of sigmoid(score difference) as the probability that the first
    text is the better one, over pairs in random order."""
    better, worse = pair_indices(ratings, min_gap)
    if not len(better):
        return float("nan")
    flip = np.random.default_rng(0).random(len(better)) < 0.5
    difference = np.where(flip, scores[worse] - scores[better], scores[better] - scores[worse])
    predicted, right = 1 / (1 + np.exp(-difference)), ~flip
    number = np.minimum((predicted * bins).astype(int), bins - 1)
    return float(sum((number == index).mean() * abs(predicted[number == index].mean() - right[number == index].mean())
                     for index in range(bins) if (number == index).any()))


def rating_figures(scores: np.ndarray, rated: Rows, train: Rows) -> dict[str, float]:
    """How well `scores` order rated texts, beside TF-IDF ridge regression on the rated texts of `train`."""
    texts, ratings = _columns(rated)
    baseline = tfidf_ridge_scores(*_columns(train), texts)
    lengths = np.array([len(text) for text in texts])
    figures = {f"{prefix}accuracy_margin_{gap}": pair_accuracy(given, ratings, float(gap))
               for prefix, given in (("", scores), ("baseline_", baseline)) for gap in (1, 2)}
    return figures | {
        "calibration_error": calibration_error(scores, ratings, 1.0),
        "rating_correlation": float(np.corrcoef(scores, ratings)[0, 1]),
        "length_correlation": float(np.corrcoef(scores, lengths)[0, 1]),
        "rating_length_correlation": float(np.corrcoef(ratings, lengths)[0, 1]),
        "score_deviation": float(scores.std()), "rated_texts": len(texts)}


def _columns(rows: Rows) -> tuple[list[str], np.ndarray]:
    return [row["text"] for row in rows], np.array([row["rating"] for row in rows])


def tfidf_ridge_scores(train_texts: list[str], train_ratings: np.ndarray, texts: list[str]) -> np.ndarray:
    """Scores of the baseline: ridge regression of the rating on TF-IDF weights of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    model = Ridge(alpha=1.0).fit(vectorizer.fit_transform(train_texts), train_ratings)
    return model.predict(vectorizer.transform(texts))
