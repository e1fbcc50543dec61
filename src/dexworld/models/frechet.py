"""The Frechet distance between two sets of feature vectors, each taken as a Gaussian.

Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; what FID and FVD
compute on other networks' features.
"""

import numpy as np


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of the means and covariances of rows (N, D) and (M, D).

    Raises ValueError on other shapes, and where one set has no more rows than numbers: its covariance has no full rank.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features must be (N, D) and (M, D), not {first.shape} and {second.shape}")
    fewest, size = min(len(first), len(second)), first.shape[1]
    if fewest <= size:
        raise ValueError(f"{fewest} rows are too few for a covariance of {size} numbers; give more than {size}")
    shift = first.mean(axis=0) - second.mean(axis=0)
    ours, theirs = (np.cov(rows, rowvar=False).reshape(size, size) for rows in (first, second))
    values, vectors = np.linalg.eigh(ours)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ theirs @ root).clip(min=0)).sum()  # tr of the root of C C'
    return max(0.0, float(shift @ shift + np.trace(ours) + np.trace(theirs) - 2 * cross))
