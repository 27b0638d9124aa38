"""How much of a figure, or of the difference between two models, is noise: bootstrap intervals over questions and over
blocks of text."""

import math
from statistics import NormalDist

import numpy as np

RESAMPLES = 4000
PICKS_AT_ONCE = 2**20
"""Most picked questions that are there at a time, 8 MB: all resamples of 20,000 questions would take a gigabyte."""
Outcomes = list[list[float]]
"""Values and weights of single questions or stretches of text: the figure is the sum of the values over that of the
weights, or near it (chrF of a corpus is no mean over sentences)."""


def stretch_outcomes(stretches: list[tuple[float, int]]) -> Outcomes:
    """Bits and bytes of each stretch of a text, of its nats and bytes."""
    return [[round(nats / math.log(2), 3) for nats, _ in stretches], [size for _, size in stretches]]


def difference_interval(first: Outcomes, second: Outcomes, paired: bool, centre: float, confidence: float = 0.95
                        ) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of the second's figure minus the first's, around `centre`.

    Paired outcomes are resampled together, which takes the difficulty of the questions out of the noise. Where all of
    the questions differ by the same, there is none, however few they are.
    """
    generator = np.random.default_rng(0)
    a, b = np.array(first), np.array(second)
    if paired and a.shape == b.shape:
        of_first, of_second = _resampled(generator, a, b)
    else:
        (of_second,), (of_first,) = _resampled(generator, b), _resampled(generator, a)
    return _around(of_second - of_first, centre, confidence)


def interval_of(figure: str, outcomes: Outcomes, value: float) -> tuple[float, float] | None:
    """95 % interval of the value of a named figure of the table: that of a share where its outcomes are such, from none
    to all of their weight in halves; None as for `figure_interval`."""
    values, weights = np.array(outcomes)
    in_halves = np.all((values >= 0) & (values <= weights) & (values * 2 % 1 == 0) & (weights % 1 == 0))
    if in_halves and not figure.endswith("chrf"):      # of 0 to 100, though each answer may have none of it
        return share_interval(outcomes, value)
    return figure_interval(outcomes, value)


def share_interval(outcomes: Outcomes, centre: float, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a share, around `centre` and from 0 to 1.

    Where all outcomes are equal, resampling would be certain of the figure however few they are: then it is the score
    interval of Wilson (1927, "Probable inference, the law of succession, and statistical inference"), which is from
    n / (n + z²) to 1 for n questions of which all are right.
    """
    if _all_equal(outcomes):
        return _wilson(centre, len(outcomes[0]), confidence)
    low, high = mean_interval([outcomes], centre, confidence)
    return max(0.0, low), min(1.0, high)


def figure_interval(outcomes: Outcomes, centre: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Percentile bootstrap interval of one model's figure, around `centre`; None where all outcomes are equal, which
    tells nothing of the noise."""
    return None if _all_equal(outcomes) else mean_interval([outcomes], centre, confidence)


def mean_interval(parts: list[Outcomes], centre: float, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of a figure over several files, each resampled by itself, around `centre`."""
    generator = np.random.default_rng(0)
    means = np.mean([_resampled(generator, part)[0] for part in map(np.array, parts)], axis=0)
    return _around(means, centre, confidence)


def ratio_interval(first: list[Outcomes], second: list[Outcomes], centre: float, confidence: float = 0.95
                   ) -> tuple[float, float]:
    """Interval of the second's mean over several files by the first's, around `centre`: paired, since both models read
    the same blocks."""
    generator = np.random.default_rng(0)
    means = np.zeros((2, RESAMPLES))
    for a, b in zip(map(np.array, first), map(np.array, second), strict=True):
        means += _resampled(generator, a, b)
    return _around(means[1] / means[0], centre, confidence)


def _all_equal(outcomes: Outcomes) -> bool:
    """Whether each question by itself has the same figure, compared without a division, since weights may be 0."""
    values, weights = np.array(outcomes)
    return bool(np.all(values * weights[0] == weights * values[0]))


def _wilson(share: float, count: int, confidence: float) -> tuple[float, float]:
    """(p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n): Wilson 1927."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z**2 / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = ((middle + side) / (1 + z**2 / count) for side in (-reach, reach))
    return max(0.0, min(low, share)), min(1.0, max(high, share))      # which rounding would miss by its last digit


def _around(figures: np.ndarray, centre: float, confidence: float) -> tuple[float, float]:
    outside = 100 * (1 - confidence) / 2
    low, high = np.percentile(figures - figures.mean(), [outside, 100 - outside])
    return centre + float(low), centre + float(high)


def _resampled(generator: np.random.Generator, *models: np.ndarray) -> np.ndarray:
    """Figures (M, RESAMPLES) of M models, of outcomes (2, N) each, on questions that are drawn with replacement: the
    same ones for all. How many resamples are drawn at a time changes no number."""
    count = models[0].shape[1]
    at_once = max(1, PICKS_AT_ONCE // count)
    figures = np.empty((len(models), RESAMPLES))
    for start in range(0, RESAMPLES, at_once):
        chosen = slice(start, min(start + at_once, RESAMPLES))
        picks = generator.integers(0, count, (chosen.stop - start, count))
        for row, (values, weights) in zip(figures, models, strict=True):
            total = float(count) if np.all(weights == 1) else weights[picks].sum(1)
            row[chosen] = values[picks].sum(1) / total
    return figures
