"""Which dates are combined to interferograms: shared by all stages that work on pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.pipeline.stage import Context

Pair = tuple[str, str]
"""Reference and secondary date."""


def select_pairs(
    dates: Sequence[str], reference_date: str, *, network: str, neighbours: int
) -> list[Pair]:
    """Return the pairs of a network as dates ``(earlier, later)`` or ``(reference, other)``.

    They come in the order of their later dates, so that those of an appended date come last.

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
        return [(reference_date, other) for other in dates if other != reference_date]
    return [
        (dates[first], dates[second])
        for second in range(len(dates))
        for first in range(max(0, second - neighbours), second)
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


def pairs_by_date(pairs: Sequence[Pair], reference_date: str) -> dict[str, list[Pair]]:
    """Group pairs by that of their dates which is farther from the reference date.

    A date that is added at either end of the stack makes a group of its own and leaves the others
    as they are.
    """
    groups: dict[str, list[Pair]] = {}
    reference = np.datetime64(reference_date, "D")
    for pair in pairs:
        distance = [abs(np.datetime64(date, "D") - reference) for date in pair]
        groups.setdefault(pair[0] if distance[0] > distance[1] else pair[1], []).append(pair)
    return groups


def pair_coordinates(
    pairs: Sequence[Pair],
) -> dict[str, tuple[tuple[str, ...], NDArray[Any], Mapping[str, Any]]]:
    """Return the coordinates ``reference_date`` and ``secondary_date`` of the pair axis."""
    days = np.array(pairs, "datetime64[D]").reshape(-1, 2).astype(np.int64)
    time = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    return {
        "reference_date": (("pair",), days[:, 0], time),
        "secondary_date": (("pair",), days[:, 1], time),
    }
