"""Which dates are compared with which, and what they share, when misregistration is estimated."""

from __future__ import annotations

from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Context

HEIGHT_MARGIN_M = 200.0


def earlier_dates(stack: Stack, date: str) -> list[str]:
    """Return the dates between the reference date and a date, the nearest to the date first."""
    low, high = sorted((stack.reference_date, date))
    between = [other for other in stack.dates if low < other < high]
    return between if date < stack.reference_date else between[::-1]


def partners(stack: Stack, date: str, neighbours: int) -> list[str]:
    """Return the dates that a date is measured against: the reference date and its neighbours.

    All lie between the reference date and the date itself, so a date that is appended changes
    nothing for the dates before it.
    """
    return [stack.reference_date, *earlier_dates(stack, date)[:neighbours]]


def height_range_m(context: Context) -> list[float]:
    """Return the heights of the whole scene with a margin for their errors."""
    summaries = [receipt["summary"] for receipt in context.receipts("geometry").values()]
    low = [item["height_min_m"] for item in summaries if item["height_min_m"] is not None]
    high = [item["height_max_m"] for item in summaries if item["height_max_m"] is not None]
    return [min(low) - HEIGHT_MARGIN_M, max(high) + HEIGHT_MARGIN_M]
