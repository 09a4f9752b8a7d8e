"""Which dates are combined to interferograms: shared by all stages that work on pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Context

Pair = tuple[int, int]
"""Positions of reference and secondary date on the date axis."""


def select_pairs(
    dates: Sequence[str], reference_date: str, *, network: str, neighbours: int
) -> list[Pair]:
    """Return the pairs of a network as indices ``(earlier, later)`` or ``(reference, other)``.

    Parameters
    ----------
    dates : sequence of str
        ISO dates in ascending order.
    reference_date : str
        Hub of the single-reference network.
    network : {"single_reference", "nearest"}
        Topology.
    neighbours : int
        Number of later dates each date is paired with in the ``nearest`` network, >= 1.
    """
    if network == "single_reference":
        hub = dates.index(reference_date)
        return [(hub, other) for other in range(len(dates)) if other != hub]
    return [
        (first, second)
        for first, second in combinations(range(len(dates)), 2)
        if second - first <= neighbours
    ]


def selected_pairs(context: Context) -> list[Pair]:
    """Return the pairs that the options of the step ``interferogram`` ask for."""
    options, stack = context.options["interferogram"], context.stack
    return select_pairs(
        stack.dates,
        stack.reference_date,
        network=options["network"],
        neighbours=options["neighbours"],
    )


def pair_coordinates(
    stack: Stack, pairs: Sequence[Pair]
) -> dict[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]]:
    """Return the coordinates ``reference_date`` and ``secondary_date`` of the pair axis."""
    days = np.array(stack.dates, "datetime64[D]").astype(np.int64)
    time = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    return {
        "reference_date": (("pair",), days[[first for first, _ in pairs]], time),
        "secondary_date": (("pair",), days[[second for _, second in pairs]], time),
    }
