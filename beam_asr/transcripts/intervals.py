"""Computes confidence intervals of rates from sums over rows, which can be added in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054  # standard deviations on either side of the mean that hold 95 %


def squares(errors: int, units: int) -> tuple[int, int, int]:
    """Returns what a row adds to the sums of `interval`.

    Args:
        errors: of the row, such as its wrong words.
        units: of the row, such as the words of its reference.
    """
    return errors * errors, units * units, errors * units


def interval(rows: int, errors: int, units: int, sums: Sequence[int]) -> list[float] | None:
    """Returns the limits of the 95 % confidence interval of a rate; None if nothing tells it.

    A row is what was drawn, not a word: errors of one recording come together. So the rate is that
    of clusters, a ratio of two sums over rows, with the variance that Cochran gives for large
    samples (Sampling Techniques, 3rd edition, 1977, section 2.11):

        rows / (rows - 1) x sum of (errors - rate x units)^2 / units^2

    That is what a bootstrap over rows (Bisani and Ney, ICASSP 2004) estimates by resampling; here
    whole numbers are added once, so that workers can add them in any order to the same digits.

    Args:
        rows: number of rows; fewer than two tell nothing.
        errors: of all rows.
        units: of all rows.
        sums: of `squares`, over all rows.
    """
    if rows < 2 or not units:
        return None
    squared_errors, squared_units, products = sums
    # In whole numbers, of which no digit is lost where large sums cancel each other.
    scaled = (
        units * units * squared_errors
        - 2 * units * errors * products
        + errors * errors * squared_units
    )
    deviation = math.sqrt(rows / (rows - 1) * (scaled / units**4))
    rate = errors / units
    return [max(0.0, rate - Z * deviation), rate + Z * deviation]
