"""Telling a rate that is over its budget from bad luck, at any time and however long one watches.

Page's cumulative sum (1954) of likelihood ratios: each outcome multiplies the evidence that the rate is three
times the budget rather than the budget itself, and evidence below 1 starts again at 1. The restart makes it a
sliding window that sets its own length: a candidate that turns bad after a month is caught as fast as one that
is bad at once. While the rate is within the budget, false alarms come on average no sooner than every ``1/alpha``
outcomes, without any correction for looking after each (Lorden 1971).
"""

from __future__ import annotations

import math

ALPHA = 1e-4
"""One false alarm in 10,000 outcomes at the very edge of the budget; below it they are far rarer."""
_WORSE = 3.0


class Budget:
    """Watches one rate.

    Args:
        rate: the share of bad outcomes that is allowed, in (0, 0.5).
        minimum: outcomes before which nothing is concluded.
        alpha: reciprocal of the mean number of outcomes between false alarms, in (0, 1).
    """

    def __init__(self, rate: float, minimum: int, alpha: float = ALPHA) -> None:
        worse = min(_WORSE * rate, (1 + rate) / 2)
        self._bad, self._good = math.log(worse / rate), math.log((1 - worse) / (1 - rate))
        self._minimum = minimum
        self._enough = -math.log(alpha)
        self._evidence = 0.0
        self.outcomes = 0
        self.bad = 0

    def add(self, *, bad: bool) -> bool:
        """Note an outcome; True when the budget is certainly overdrawn."""
        self.outcomes += 1
        self.bad += bad
        self._evidence = max(self._evidence, 0.0) + (self._bad if bad else self._good)
        return self.outcomes >= self._minimum and self._evidence >= self._enough
