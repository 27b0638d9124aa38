"""How well scores order texts as people did: pair accuracy and calibration, beside a baseline."""

import numpy as np


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


def tfidf_ridge_scores(train_texts: list[str], train_ratings: np.ndarray, texts: list[str]) -> np.ndarray:
    """Scores of the baseline: ridge regression of the rating on TF-IDF weights of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    model = Ridge(alpha=1.0).fit(vectorizer.fit_transform(train_texts), train_ratings)
    return model.predict(vectorizer.transform(texts))
