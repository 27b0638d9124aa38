"""How much of the difference between two models is noise: paired bootstrap intervals over questions."""

import numpy as np

RESAMPLES = 4000
Outcomes = list[list[float]]
"""Values and weights of single questions or stretches of text: the figure is the sum of the values over that of the
weights, or near it (chrF of a corpus is no mean over sentences)."""


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
    outside = 100 * (1 - confidence) / 2
    low, high = np.percentile(differences - differences.mean(), [outside, 100 - outside])
    return centre + float(low), centre + float(high)


def _figures(outcomes: np.ndarray, picks: np.ndarray) -> np.ndarray:
    return outcomes[0][picks].sum(1) / outcomes[1][picks].sum(1)
