"""The population stability index (PSI) of a window against a reference, and its distribution while nothing drifts.

The reference has the counts c of N rows over B cells, the window the counts w of n rows. With half a count added to
each cell, p = (c + 1/2) / (N + B/2) and q = (w + 1/2) / (n + B/2), and PSI = Σ (q - p) log(q / p).

The reference is a sample, too. Its true shares are therefore drawn from the Dirichlet distribution with the parameters
c + 1/2 (Jeffreys's prior), and the window from those shares: w has the Dirichlet-multinomial distribution. That is the
distribution of independent negative binomial counts, given that their sum is n (Johnson, Kotz and Balakrishnan,
"Discrete Multivariate Distributions", 1997, chapter 35). PSI is a sum over the cells as well, so that its distribution
follows from a recursion over the cells. No random numbers are needed, and probabilities of 1e-7 are as exact as .5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = Sequence[int] | NDArray[np.int64]

# With so few cells every outcome is listed.
FEW_CELLS = 3
# Steps of PSI in the recursion: in the first one, which finds the range, and the bounds in the second one.
COARSE, FEWEST, MOST = 160, 512, 3072
# The recursion is exact up to the rounding of PSI to its steps; the steps are chosen for this relative error.
ERROR = 0.03
# A negative binomial probability that is left out. What is left out is counted as PSI beyond the range.
NEGLIGIBLE = 1e-14
# Two equal values of PSI differ by the rounding of floats.
ROUNDING = 1e-9


def index(counts: Counts, window: Counts) -> float:
    """The PSI of the window's counts against the reference's counts, of the same length."""
    terms = _terms(counts, int(np.sum(window)))
    return float(terms[np.arange(len(terms)), np.asarray(window)].sum())


def exact(counts: Counts, n: int) -> tuple[Floats, Floats]:
    """The possible values of PSI, ascending, and the probability of each or a larger one, for at most 3 cells."""
    terms, weights = _terms(counts, n), [_negative_binomial(a, _odds(counts, n), n) for a in _parameters(counts)]
    if len(terms) == 2:
        first = np.arange(n + 1)
        outcomes = [first, n - first]
    else:
        first, second = np.divmod(np.arange((n + 1) ** 2), n + 1)
        kept = first + second <= n
        outcomes = [first[kept], second[kept], n - first[kept] - second[kept]]
    psi = np.sum([term[k] for term, k in zip(terms, outcomes, strict=True)], axis=0)
    mass = np.prod([weight[k] for weight, k in zip(weights, outcomes, strict=True)], axis=0)
    order = np.argsort(psi)
    psi, tail = psi[order], np.cumsum((mass / mass.sum())[order][::-1])[::-1]
    first_of_equal = np.concatenate([[True], np.diff(psi) > ROUNDING])
    return psi[first_of_equal], np.minimum(tail[first_of_equal], 1.0)


def tabulate(counts: Counts, n: int, tails: Floats, level: float, most: int = MOST) -> tuple[Floats, float]:
    """The PSI that is reached with each of the probabilities `tails` (descending), and the relative error at `level`.

    The table errs to the safe side: PSI is rounded at random to one of its two neighbouring steps, and the standard
    deviation of that is added. The error is that of the probability, an upper limit. `most` is the largest number of
    steps: fewer are faster and err more to the safe side.
    """
    cells = len(counts)
    top = (cells + 10 * math.sqrt(cells) + 30) * (1 / n + 1 / max(int(np.sum(counts)), 1))
    while (coarse := _tail(counts, n, top, COARSE))[-1] > tails[-1] / 2:
        top *= 2
    found = _quantiles(coarse, top / COARSE, np.array([level * 2, level, tails[-1] / 2]))
    top, slope = float(found[2]) * 1.02, math.log(2) / max(float(found[1] - found[0]), 1e-9)
    steps = min(max(math.ceil(top * slope * math.sqrt(cells / 6) / ERROR), FEWEST), most)
    tail, step = _tail(counts, n, top, steps), top / steps
    noise = step * math.sqrt(cells / 6)
    table = _quantiles(tail, step, tails) + noise
    slope = math.log(2) / max(float(np.diff(_quantiles(tail, step, np.array([level * 2, level])))[0]), noise)
    return table, math.expm1(slope * noise)


def _parameters(counts: Counts) -> Floats:
    return np.asarray(counts, dtype=np.float64) + 0.5


def _odds(counts: Counts, n: int) -> float:
    """The parameter of the negative binomial counts with which their expected sum is n; each value gives the same."""
    return float(n / (n + _parameters(counts).sum()))


def _terms(counts: Counts, n: int) -> Floats:
    """The contribution of each cell to PSI for each count from 0 to n, of shape (cells, n + 1); none is negative."""
    parameters = _parameters(counts)
    p = (parameters / parameters.sum())[:, None]
    q = (np.arange(n + 1) + 0.5)[None, :] / (n + 0.5 * len(p))
    terms: Floats = (q - p) * np.log(q / p)
    return terms


def _negative_binomial(a: float, odds: float, n: int) -> Floats:
    """The probabilities of 0 to n; `a` is the number of failures and need not be whole."""
    k = np.arange(1, n + 1)
    logs = np.concatenate([[a * math.log1p(-odds)], np.log((a + k - 1) / k * odds)])
    probabilities: Floats = np.exp(np.cumsum(logs))
    return probabilities


def _tail(counts: Counts, n: int, top: float, steps: int) -> Floats:
    """The probability of PSI in step i or above, of shape (steps + 1,); the last one is PSI beyond `top`.

    The state holds the probability of each sum of counts (row) and PSI (column) over the cells so far. A value of PSI
    between two columns is divided between them, which leaves its mean as it is.
    """
    odds, parameters = _odds(counts, n), _parameters(counts)
    order = np.argsort(-parameters)
    order = np.concatenate([order[:1], order[2:], order[1:2]])  # the first and the last cell cost least
    terms = _terms(counts, n)[order] * (steps / top)
    weights = [_negative_binomial(a, odds, n) for a in parameters[order]]
    state = np.zeros((n + 1, steps + 1))
    state[0, 0] = 1.0
    low = high = 0  # the rows that are not zero
    for cell, (term, weight) in enumerate(zip(terms, weights, strict=True)):
        chosen = np.flatnonzero((term < steps) & (weight > NEGLIGIBLE))
        if cell == len(terms) - 1:
            state = _last(state, chosen, term, weight)
        else:
            state, low, high = _next(state, (low, high), chosen, term, weight)
    inside = state[:steps] / _negative_binomial(float(parameters.sum()), odds, n)[n]
    beyond = max(0.0, 1 - float(inside.sum()))
    return np.concatenate([np.cumsum(inside[::-1])[::-1] + beyond, [beyond]])


def _next(
    state: Floats, rows: tuple[int, int], chosen: NDArray[np.int64], term: Floats, weight: Floats
) -> tuple[Floats, int, int]:
    """The state with one more cell, and the rows that are not zero."""
    (low, high), (n, width) = rows, (len(state) - 1, state.shape[1])
    after, buffer = np.zeros_like(state), np.empty_like(state)
    for k in chosen.tolist():
        if low + k > n:
            break
        rest = min(high, n - k)
        at, part = int(term[k]), term[k] % 1
        for column, share in ((at, weight[k] * (1 - part)), (at + 1, weight[k] * part)):
            source = state[low : rest + 1, : width - column]
            product = np.multiply(source, share, out=buffer[: len(source), : width - column])
            after[low + k : rest + k + 1, column:] += product
    if not len(chosen):
        return after, low, high
    return after, low + int(chosen[0]), min(high + int(chosen[-1]), n)


def _last(state: Floats, chosen: NDArray[np.int64], term: Floats, weight: Floats) -> Floats:
    """The row of the sum n with the last cell."""
    n, width = len(state) - 1, state.shape[1]
    after = np.zeros(width)
    for k in chosen.tolist():
        at, part = int(term[k]), term[k] % 1
        after[at:] += weight[k] * (1 - part) * state[n - k, : width - at]
        after[at + 1 :] += weight[k] * part * state[n - k, : width - at - 1]
    return after


def _quantiles(tail: Floats, step: float, tails: Floats) -> Floats:
    """The PSI of each probability, by linear interpolation in its logarithm; step i reaches from i - 1/2 to i + 1/2."""
    logs = -np.log(np.maximum(np.minimum.accumulate(tail), 1e-300))
    psi = np.maximum((np.arange(len(tail)) - 0.5) * step, 0.0)
    found: Floats = np.interp(-np.log(tails), logs, psi)
    return found
