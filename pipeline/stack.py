"""The stack: which bursts exist on which dates, and where each burst lies in the scene.

All bursts lie on one integer grid of lines and samples that starts at the earliest line and the
nearest sample of the reference date. The remainder below one line (swaths are not sampled at the
same instants) stays with each burst's own timing, so geometry is exact although the grid is
integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bperp.pipeline.burst import BurstImage
from bperp.stores.errors import StackError

Rectangle = tuple[int, int, int, int]
"""``(first line, stop line, first sample, stop sample)``."""


@dataclass(frozen=True)
class Placement:
    """A burst in the scene.

    ``azimuth`` and ``range`` are the scene indices of the burst's first line and sample;
    ``valid`` and ``owned`` are rectangles in scene indices. Owned rectangles do not overlap: each
    scene pixel comes from at most one burst.
    """

    burst_id: str
    swath: str
    azimuth: int
    range: int
    valid: Rectangle
    owned: Rectangle


@dataclass(frozen=True)
class Scene:
    """The common integer grid of the reference date."""

    lines: int
    samples: int
    looks: tuple[int, int]
    placements: tuple[Placement, ...]
    crop: Rectangle | None = None
    """Part of the whole grid that is left, in lines and samples of the whole grid."""

    def as_dict(self, window: Rectangle | None = None) -> dict[str, Any]:
        """Return the part that tasks need as JSON values.

        With a window only the bursts that own some of its pixels, so that a task does not depend
        on the others.
        """
        return {
            "shape": [self.lines, self.samples],
            "placements": [
                {"burst_id": p.burst_id, "origin": [p.azimuth, p.range], "owned": list(p.owned)}
                for p in self.placements
                if window is None or intersect(window, p.owned)
            ],
        }


@dataclass(frozen=True)
class Overlap:
    """Valid pixels that two neighbouring bursts share, in scene indices."""

    upper: str
    lower: str
    rectangle: Rectangle


@dataclass(frozen=True)
class Stack:
    """Bursts by dates, with the scene of the reference date.

    ``dates`` are ISO dates in ascending order and index the date axis of every product;
    ``images`` maps ``(burst_id, date)`` to the burst image; a missing key is a hole.
    """

    reference_date: str
    dates: tuple[str, ...]
    images: Mapping[tuple[str, str], BurstImage]
    scene: Scene

    @property
    def burst_ids(self) -> tuple[str, ...]:
        """Burst ids of the reference date, swath by swath in time order."""
        return tuple(placement.burst_id for placement in self.scene.placements)

    @property
    def swaths(self) -> tuple[str, ...]:
        """Swaths of the reference date in order."""
        return tuple(sorted({placement.swath for placement in self.scene.placements}))

    def reference(self, burst_id: str) -> BurstImage:
        """Return the burst on the reference date."""
        return self.images[burst_id, self.reference_date]

    def date_index(self, date: str) -> int:
        """Return the position of a date on the date axis."""
        return self.dates.index(date)

    def dates_of(self, burst_id: str) -> Iterator[str]:
        """Yield the dates on which a burst exists."""
        return (date for date in self.dates if (burst_id, date) in self.images)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values that ``from_dict`` restores."""
        return {
            "reference_date": self.reference_date,
            "dates": list(self.dates),
            "looks": list(self.scene.looks),
            "crop": None if self.scene.crop is None else list(self.scene.crop),
            "images": [self.images[key].as_dict() for key in sorted(self.images)],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Stack:
        """Restore a stack from ``as_dict`` or its JSON text."""
        images = [BurstImage.from_dict(item) for item in record["images"]]
        references = [image for image in images if image.date == record["reference_date"]]
        return cls(
            record["reference_date"],
            tuple(record["dates"]),
            {(image.burst_id, image.date): image for image in images},
            arrange_scene(
                references,
                (record["looks"][0], record["looks"][1]),
                None if record.get("crop") is None else tuple(record["crop"]),
            ),
        )

    def overlaps(self) -> tuple[Overlap, ...]:
        """Return the overlaps of successive bursts of a swath, in burst order."""
        return tuple(
            Overlap(upper.burst_id, lower.burst_id, common)
            for upper, lower in pairwise(self.scene.placements)
            if upper.swath == lower.swath and (common := intersect(upper.valid, lower.valid))
        )

    def seams(self) -> tuple[Overlap, ...]:
        """Return the overlaps of all neighbouring bursts, those of adjoining swaths included."""
        places = self.scene.placements
        inside = (0, self.scene.lines, 0, self.scene.samples)
        sideways = [
            Overlap(near.burst_id, far.burst_id, common)
            for first, second in pairwise(self.swaths)
            for near in places
            for far in places
            if (near.swath, far.swath) == (first, second)
            and (common := intersect(near.valid, far.valid))
        ]
        return tuple(
            Overlap(seam.upper, seam.lower, common)
            for seam in (*self.overlaps(), *sideways)
            if (common := intersect(seam.rectangle, inside))
        )

    def needed(self, burst_id: str, *, overlaps: bool) -> tuple[Rectangle, ...]:
        """Return the parts of a burst that lie in the scene, in lines and samples of the burst.

        ``overlaps`` adds the whole overlaps with other bursts, which are measured even where the
        scene is smaller.
        """
        place = next(p for p in self.scene.placements if p.burst_id == burst_id)
        image = self.reference(burst_id)
        areas = [(0, self.scene.lines, 0, self.scene.samples)]
        if overlaps:
            areas += [o.rectangle for o in self.overlaps() if burst_id in (o.upper, o.lower)]
        local = [
            (top - place.azimuth, bottom - place.azimuth, left - place.range, right - place.range)
            for top, bottom, left, right in areas
        ]
        whole = (0, image.lines, 0, image.samples)
        return tuple(common for area in local if (common := intersect(area, whole)))


def intersect(first: Rectangle, second: Rectangle) -> Rectangle | None:
    """Return the pixels that two rectangles share, ``None`` if there are none."""
    top, left = max(first[0], second[0]), max(first[2], second[2])
    bottom, right = min(first[1], second[1]), min(first[3], second[3])
    return (top, bottom, left, right) if top < bottom and left < right else None


def meets_any(area: Rectangle, others: Sequence[Sequence[int]]) -> bool:
    """Tell whether a rectangle shares pixels with any of others."""
    return any(intersect(area, (o[0], o[1], o[2], o[3])) for o in others)


def arrange_scene(
    references: Sequence[BurstImage], looks: tuple[int, int], crop: Rectangle | None = None
) -> Scene:
    """Place the bursts of the reference date on one integer grid.

    Parameters
    ----------
    references : sequence of BurstImage
        All bursts of the reference date, in any order.
    looks : tuple of int
        Azimuth and range looks; cuts between bursts and swaths fall on multiples of them, so
        that no look window straddles two bursts.
    crop : tuple of int, optional
        Lines and samples of the whole grid to keep; widened to multiples of the looks.

    Returns
    -------
    Scene
        Placements ordered by swath, then time.

    Raises
    ------
    StackError
        S410 if the bursts are not sampled alike.
    """
    ordered = sorted(references, key=lambda image: (image.swath, image.first_line_time_ns))
    _require_equal_sampling(ordered)
    first_ns = min(image.first_line_time_ns for image in ordered)
    near_s = min(image.slant_range_time_s for image in ordered)
    placed = []
    for image in ordered:
        interval_ns = image.azimuth_time_interval_s * 1e9
        azimuth = round((image.first_line_time_ns - first_ns) / interval_ns)
        column = round((image.slant_range_time_s - near_s) * image.range_sampling_rate_hz)
        top, bottom, left, right = image.valid
        valid = (azimuth + top, azimuth + bottom, column + left, column + right)
        placed.append(Placement(image.burst_id, image.swath, azimuth, column, valid, valid))
    placed = _cut_swaths(_cut_bursts(placed, looks[0]), looks[1])
    lines = max(p.azimuth + image.lines for p, image in zip(placed, ordered, strict=True))
    samples = max(p.range + image.samples for p, image in zip(placed, ordered, strict=True))
    whole = Scene(lines, samples, looks, tuple(placed))
    return whole if crop is None else _crop(whole, crop)


def _crop(scene: Scene, crop: Rectangle) -> Scene:
    """Cut a scene out of a larger one; its first pixel becomes the origin of all indices."""
    line_step, sample_step = scene.looks
    kept = intersect(
        (
            crop[0] // line_step * line_step,
            -(-crop[1] // line_step) * line_step,
            crop[2] // sample_step * sample_step,
            -(-crop[3] // sample_step) * sample_step,
        ),
        (0, scene.lines, 0, scene.samples),
    )
    if kept is None:
        raise ValueError(f"crop must meet {scene.lines} x {scene.samples} pixels, got {crop}")
    top, bottom, left, right = kept

    def moved(area: Rectangle) -> Rectangle:
        return area[0] - top, area[1] - top, area[2] - left, area[3] - left

    placements = tuple(
        Placement(
            place.burst_id,
            place.swath,
            place.azimuth - top,
            place.range - left,
            moved(place.valid),
            moved(intersect(place.owned, kept) or (top, top, left, left)),
        )
        for place in scene.placements
    )
    return Scene(bottom - top, right - left, scene.looks, placements, kept)


def _require_equal_sampling(images: Sequence[BurstImage]) -> None:
    for image in images:
        for name in ("azimuth_time_interval_s", "range_sampling_rate_hz", "radar_frequency_hz"):
            if getattr(image, name) != getattr(images[0], name):
                raise StackError(
                    "S410",
                    f"bursts of the reference date differ in {name}",
                    where=image.burst_id,
                    expected=f"{getattr(images[0], name)} as in {images[0].burst_id}",
                    found=str(getattr(image, name)),
                    remedy="process swaths with different sampling as separate stacks",
                )


def _cut_bursts(places: list[Placement], azimuth_looks: int) -> list[Placement]:
    """Cut overlapping bursts of a swath at the middle of the overlap."""
    result = list(places)
    for index, (upper, lower) in enumerate(pairwise(places)):
        overlap = upper.valid[1] - lower.valid[0]
        if upper.swath != lower.swath or overlap <= 0:
            continue
        cut = _aligned_middle(lower.valid[0], upper.valid[1], azimuth_looks)
        result[index] = _with_owned(result[index], 1, min(cut, upper.valid[1]))
        result[index + 1] = _with_owned(result[index + 1], 0, max(cut, lower.valid[0]))
    return result


def _cut_swaths(places: list[Placement], range_looks: int) -> list[Placement]:
    """Cut overlapping swaths at the middle of the range overlap, one column for all bursts."""
    swaths = sorted({place.swath for place in places})
    for near, far in pairwise(swaths):
        stop = min(place.valid[3] for place in places if place.swath == near)
        start = max(place.valid[2] for place in places if place.swath == far)
        if stop <= start:
            continue
        cut = _aligned_middle(start, stop, range_looks)
        places = [
            _with_owned(place, 3, cut)
            if place.swath == near
            else _with_owned(place, 2, cut)
            if place.swath == far
            else place
            for place in places
        ]
    return places


def _aligned_middle(start: int, stop: int, step: int) -> int:
    return round((start + stop) / (2 * step)) * step


def _with_owned(place: Placement, edge: int, value: int) -> Placement:
    owned = list(place.owned)
    owned[edge] = value
    return Placement(
        place.burst_id,
        place.swath,
        place.azimuth,
        place.range,
        place.valid,
        (owned[0], owned[1], owned[2], owned[3]),
    )
