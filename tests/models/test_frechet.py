import numpy as np
import pytest

from dexworld.models.frechet import frechet_distance


def rows(mean, root, seed, count=40):
    """Rows whose mean is `mean` and whose covariance is `root` @ `root`.T, both exactly."""
    drawn = np.random.default_rng(seed).standard_normal((count, len(mean)))
    drawn -= drawn.mean(axis=0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return white @ np.asarray(root).T + mean


def test_of_gaussians_with_separate_numbers_it_is_the_shift_and_the_difference_of_the_deviations():
    first = rows(np.array([1.0, -2.0, 0.5]), np.diag([0.3, 1.0, 2.0]), seed=0)
    second = rows(np.array([1.5, -2.0, 0.0]), np.diag([0.5, 1.0, 0.5]), seed=1, count=60)
    assert frechet_distance(first, second) == pytest.approx(0.5**2 + 0.5**2 + 0.2**2 + 1.5**2)
    assert frechet_distance(first, first[::-1]) == pytest.approx(0.0, abs=1e-9)


def test_of_gaussians_whose_axes_differ_it_is_the_closed_form_of_two_dimensions():
    root, other = np.array([[2.0, 0.0], [1.0, 0.5]]), np.array([[1.0, 0.0], [-0.8, 0.3]])
    product = root @ root.T @ other @ other.T
    cross = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))  # tr of a 2 x 2 root
    expected = np.trace(root @ root.T) + np.trace(other @ other.T) - 2 * cross
    assert frechet_distance(rows(np.zeros(2), root, 0), rows(np.zeros(2), other, 1)) == pytest.approx(expected)


def test_too_few_rows_for_a_covariance_are_refused():
    with pytest.raises(ValueError, match="3 rows are too few for a covariance of 3 numbers"):
        frechet_distance(np.eye(3), np.zeros((9, 3)))
    with pytest.raises(ValueError, match=r"\(9, 3\) and \(9, 2\)"):
        frechet_distance(np.zeros((9, 3)), np.zeros((9, 2)))
