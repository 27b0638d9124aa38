"""How much of a figure, or of the difference between two models, is noise: bootstrap intervals over questions and over
blocks of text."""

import math

import numpy as np

RESAMPLES = 4000
Outcomes = list[list[float]]
"""Values and weights of single questions or stretches of text: the figure is the sum of the values over that of the
weights, or near it (chrF of a corpus is no mean over sentences)."""


def stretch_outcomes(stretches: list[tuple[float, int]]) -> Outcomes:
    """Bits and bytes of each stretch of a text, of its nats and bytes."""
    return [[round(nats / math.log(2), 3) for nats, _ in stretches], [size for _, size in stretches]]


def difference_interval(first: Outcomes, second: Outcomes, paired: bool, centre: float, confidence: float = 0.95
                        ) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of the second's figure minus the first's, around `centre`.

    Paired outcomes are resampled together, which takes the difficulty of the questions out of the noise.
    """
    generator = np.random.default_rng(0)
    a, b = np.array(first), np.array(second)
    if paired and a.shape == b.shape:
        picks = generator.integers(0, a.shape[1], (RESAMPLES, a.shape[1]))
        differences = _figures(b, picks) - _figures(a, picks)
    else:
        differences = (_figures(b, generator.integers(0, b.shape[1], (RESAMPLES, b.shape[1])))
                       - _figures(a, generator.integers(0, a.shape[1], (RESAMPLES, a.shape[1]))))
    return _around(differences, centre, confidence)


def figure_interval(outcomes: Outcomes, centre: float, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of one model's figure, around `centre`."""
    return mean_interval([outcomes], centre, confidence)


def mean_interval(parts: list[Outcomes], centre: float, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of a figure over several files, each resampled by itself, around `centre`."""
    generator = np.random.default_rng(0)
    means = np.mean([_figures(part, _picks(part, generator)) for part in map(np.array, parts)], axis=0)
    return _around(means, centre, confidence)


def ratio_interval(first: list[Outcomes], second: list[Outcomes], centre: float, confidence: float = 0.95
                   ) -> tuple[float, float]:
    """Interval of the second's mean over several files by the first's, around `centre`: paired, since both models read
    the same blocks."""
    generator = np.random.default_rng(0)
    means = np.zeros((2, RESAMPLES))
    for a, b in zip(map(np.array, first), map(np.array, second), strict=True):
        picks = _picks(a, generator)
        means += [_figures(a, picks), _figures(b, picks)]
    return _around(means[1] / means[0], centre, confidence)


def _picks(outcomes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, outcomes.shape[1], (RESAMPLES, outcomes.shape[1]))


def _around(figures: np.ndarray, centre: float, confidence: float) -> tuple[float, float]:
    outside = 100 * (1 - confidence) / 2
    low, high = np.percentile(figures - figures.mean(), [outside, 100 - outside])
    return centre + float(low), centre + float(high)


def _figures(outcomes: np.ndarray, picks: np.ndarray) -> np.ndarray:
    return outcomes[0][picks].sum(1) / outcomes[1][picks].sum(1)
