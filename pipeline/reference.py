"""Choice of the reference date: the one that keeps most coherence with all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bperp.pipeline.baseline import center_baseline_m
from bperp.pipeline.burst import BurstImage

CRITICAL_TIME_DAYS = 1500.0
CRITICAL_BASELINE_M = 1070.0
"""Limits of the linear coherence model of StaMPS (Zebker and Villasenor 1992)."""


def choose_reference(images: Mapping[tuple[str, str], BurstImage], dates: Sequence[str]) -> str:
    """Return the date with the largest sum of expected coherence to all others.

    Only dates with the largest number of bursts qualify. Expected coherence is
    ``(1 - |days| / 1500) (1 - |baseline| / 1070 m)``, zero beyond; ties go to the earlier date.
    """
    count = {date: sum(1 for _, other in images if other == date) for date in dates}
    complete = [date for date in dates if count[date] == max(count.values())]
    burst = min(name for name, date in images if date == complete[0])
    baselines = {
        date: center_baseline_m(images[burst, complete[0]], images[burst, date])
        for date in dates
        if (burst, date) in images
    }
    days = {date: np.datetime64(date, "D").astype(int) for date in baselines}

    def score(date: str) -> float:
        return sum(
            max(0.0, 1 - abs(int(days[date] - days[other])) / CRITICAL_TIME_DAYS)
            * max(0.0, 1 - abs(baselines[date] - baselines[other]) / CRITICAL_BASELINE_M)
            for other in baselines
        )

    return max(
        (date for date in complete if date in baselines),
        key=lambda date: (score(date), [-ord(c) for c in date]),
    )
