"""Images whose law, and every posterior of it, is known: what trainings are held to."""

import numpy as np

GREY, RANGE = 0.25, (-2.0, 2.0)  # deviation of a pixel from its image's level; of the values
LAWS = {  # of the level: weight, mean and deviation of each component
    "gaussian": [(1.0, 0.0, 0.3)],
    "mixture": [(0.3, -0.4, 0.1), (0.7, 0.4, 0.1)],
}


def of_one_level(law, count, rng):
    """Images ``[count, 8, 8]``: a level for all of it, and noise of every pixel."""
    which = rng.choice(len(law), count, p=[weight for weight, _, _ in law])
    _, means, deviations = np.array(law).T
    levels = rng.normal(means[which], deviations[which])
    return (levels[:, None, None] + rng.normal(0, GREY, (count, 8, 8))).astype(np.float32)


def posterior(law, known, hidden):
    """Mean and variance of the mean of so many hidden pixels, given the values of those that are known."""
    weights, means, variances = np.array(law).T ** np.array([[1], [1], [2]])
    n, average = len(known), known.mean() if len(known) else 0.0
    if n:
        spread = variances + GREY**2 / n
        weights = weights * np.exp(-((average - means) ** 2) / spread / 2) / np.sqrt(spread)
    each = 1 / (1 / variances + n / GREY**2)
    centre = each * (means / variances + n * average / GREY**2)
    mean = weights @ centre / weights.sum()
    return mean, weights @ (each + centre**2) / weights.sum() - mean**2 + GREY**2 / hidden


def beside_posterior(law, images, hidden, filled):
    """Completions ``[N, K, 8, 8]`` beside the exact posterior of the mean of an image's hidden pixels.

    The root mean square error of its mean; its deviation, and what that should be; the deviation of pixels; the levels
    ``[N, K]``.
    """
    drawn = [filled[i][:, hidden[i]] for i in range(len(images))]  # [K, pixels] of each image
    mean, variance = np.array([posterior(law, x[~h], h.sum()) for x, h in zip(images, hidden, strict=True)]).T
    levels = np.stack([each.mean(1) for each in drawn])
    off, spread = np.sqrt(((levels.mean(1) - mean) ** 2).mean()), np.sqrt(levels.var(1).mean())
    return off, spread, np.sqrt(variance.mean()), np.mean([each.std(1).mean() for each in drawn]), levels
