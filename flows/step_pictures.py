"""One picture per finished step, drawn from the products of a root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bperp.flows.picture_style import RadarGrid
from bperp.pipeline.amplitude import PRODUCT as AMPLITUDE
from bperp.pipeline.filtering import PRODUCT as FILTERED
from bperp.pipeline.geocode import PRODUCT as GEOCODED
from bperp.pipeline.ingest import product as slc_product
from bperp.pipeline.interferogram import PRODUCT as INTERFEROGRAM
from bperp.pipeline.publish_layout import OVERVIEWS
from bperp.pipeline.radar import ground_spacing_m
from bperp.pipeline.scatterers import PRODUCT as SCATTERERS
from bperp.pipeline.scene import SceneReader
from bperp.pipeline.seams import PRODUCT as SEAMS
from bperp.pipeline.stack import Stack
from bperp.pipeline.stage import Source
from bperp.pipeline.timeseries import PRODUCT as TIMESERIES

Summaries = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Stage to task key to receipt summary."""

STRIP_LINES = 256
LARGEST = 1600
"""Pictures are drawn from at most about this many lines or samples."""


def draw_step(
    step: str,
    folder: Path,
    stack: Stack,
    source: Source,
    summaries: Summaries,
    options: Mapping[str, Mapping[str, Any]],
) -> list[Path]:
    """Draw the pictures of a finished step.

    Parameters
    ----------
    step : str
        Name of the step; one without a picture gives an empty list.
    folder : Path
        Folder for the PNG files.
    stack : Stack
        The stack.
    source : Source
        Reader of the root's products.
    summaries : mapping
        Receipt summaries of the finished steps.
    options : mapping
        Options by step.

    Returns
    -------
    list of Path
        Files written.
    """
    draw = _DRAW.get(step)
    if draw is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return draw(folder, stack, source, summaries, options)


def _grid(stack: Stack, factor: tuple[int, int] = (1, 1)) -> RadarGrid:
    spacing = ground_spacing_m(stack.reference(stack.burst_ids[0]))
    return RadarGrid(spacing[0] * factor[0], spacing[1] * factor[1], _is_ascending(stack))


def _is_ascending(stack: Stack) -> bool:
    orbit = stack.reference(stack.burst_ids[0]).orbit
    return orbit.velocity_m_s[len(orbit.velocity_m_s) // 2][2] > 0


def _factors(stack: Stack) -> tuple[int, int]:
    """Return line and sample steps that keep pictures small and pixels about square."""
    spacing = ground_spacing_m(stack.reference(stack.burst_ids[0]))
    line_step = max(1, -(-stack.scene.lines // LARGEST))
    sample_step = max(1, round(line_step * spacing[0] / spacing[1]))
    return line_step, sample_step


def _thinned(
    stack: Stack, read: Callable[[tuple[int, int, int, int]], NDArray[Any]]
) -> NDArray[Any]:
    """Read a scene raster strip by strip and keep every n-th pixel."""
    line_step, sample_step = _factors(stack)
    strips = []
    height = max(1, STRIP_LINES // line_step) * line_step
    for first in range(0, stack.scene.lines, height):
        window = (first, min(first + height, stack.scene.lines), 0, stack.scene.samples)
        strips.append(read(window)[::line_step, ::sample_step])
    return np.concatenate(strips)


def _averaged(
    stack: Stack, read: Callable[[tuple[int, int, int, int]], NDArray[Any]]
) -> NDArray[np.float64]:
    """Read a scene raster of amplitudes strip by strip and average its power in blocks."""
    line_step, sample_step = _factors(stack)
    columns = stack.scene.samples // sample_step
    strips = []
    height = max(1, STRIP_LINES // line_step) * line_step
    for first in range(0, stack.scene.lines - line_step + 1, height):
        rows = min(height, stack.scene.lines - first) // line_step
        window = (first, first + rows * line_step, 0, columns * sample_step)
        power = np.nan_to_num(np.abs(read(window)).astype(np.float64)) ** 2
        blocks = power.reshape(rows, line_step, columns, sample_step)
        strips.append(np.sqrt(blocks.mean(axis=(1, 3))))
    return np.concatenate(strips)


def _draw_ingest(
    folder: Path, stack: Stack, source: Source, _summaries: Summaries, _options: Any
) -> list[Path]:
    from bperp.flows.pictures import picture_amplitude

    files = []
    for burst in stack.burst_ids:
        image = stack.reference(burst)
        numbers = source.read(
            slc_product(burst),
            "slc",
            (stack.reference_date, slice(image.lines), slice(image.samples), slice(2)),
        )[0]
        path = folder / f"01-ingest-{burst}.png"
        picture_amplitude(
            path,
            np.hypot(numbers[..., 0], numbers[..., 1], dtype=np.float32),
            title=f"Burst {burst}",
            note=f"{stack.reference_date}, digital numbers as in the product",
            grid=_grid(stack),
        )
        files.append(path)
    return files


def _draw_geometry(
    folder: Path, stack: Stack, source: Source, _summaries: Summaries, _options: Any
) -> list[Path]:
    from bperp.flows.pictures import picture_geometry

    reader = SceneReader(source, stack.scene.as_dict())
    height = _thinned(stack, lambda window: reader.geometry(window, "height"))
    incidence = _thinned(stack, lambda window: reader.geometry(window, "incidence_angle"))
    path = folder / "02-geometry.png"
    note = f"reference date {stack.reference_date}"
    picture_geometry(
        path, height, np.degrees(incidence), note=note, grid=_grid(stack, _factors(stack))
    )
    return [path]


def _draw_alignment(
    folder: Path, stack: Stack, _source: Source, summaries: Summaries, _options: Any
) -> list[Path]:
    from bperp.flows.pictures import picture_alignment

    table = [summaries["alignment"][date] for date in stack.dates]
    ranges = [np.array(range_shifts(item)) for item in table]
    shifts = [
        (item["azimuth_shift_lines"], rows[:, 0].mean())
        for item, rows in zip(table, ranges, strict=True)
    ]
    sigmas = [
        (_number(item["azimuth_shift_sigma_lines"]), rows[:, 1].max())
        for item, rows in zip(table, ranges, strict=True)
    ]
    baselines = [np.mean(list(item["perpendicular_baseline_m"].values())) for item in table]
    path = folder / "04-alignment.png"
    picture_alignment(
        path, stack.dates, shifts, sigmas, baselines, reference_date=stack.reference_date
    )
    return [path]


def range_shifts(item: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return range shift and sigma (samples) of every swath from the summary of an alignment."""
    return [(shift["samples"], _number(shift["sigma"])) for shift in item["range_shift"].values()]


def _number(value: float | None) -> float:
    return float("inf") if value is None else value


def _draw_coregister(
    folder: Path, stack: Stack, source: Source, _summaries: Summaries, _options: Any
) -> list[Path]:
    from bperp.flows.pictures import picture_amplitude

    reader = SceneReader(source, stack.scene.as_dict())
    date = next(date for date in stack.dates if date != stack.reference_date)
    amplitude = _averaged(stack, lambda window: reader.slc(window, date))
    path = folder / "05-coregister.png"
    picture_amplitude(
        path,
        amplitude,
        title="Coregistered scene",
        note=f"{date} on the grid of {stack.reference_date}",
        grid=_grid(stack, _factors(stack)),
    )
    return [path]


def _pair_labels(source: Source, product: str) -> list[str]:
    """Return both dates of every pair of a product."""
    first, second = (
        np.asarray(source.read(product, name, (slice(None),)), "datetime64[D]")
        for name in ("reference_date", "secondary_date")
    )
    return [f"{a} / {b}" for a, b in zip(first, second, strict=True)]


def _draw_seams(
    folder: Path, stack: Stack, source: Source, summaries: Summaries, _options: Any
) -> list[Path]:
    from bperp.flows.pictures import picture_seams

    if not summaries["seams"]:
        return []
    names = [str(name).split("/") for name in source.read(SEAMS, "seam", (slice(None),))]
    sideways = [
        stack.reference(first).swath != stack.reference(second).swath for first, second in names
    ]
    phase, sigma = (
        source.read(SEAMS, name, (slice(None), slice(None)))
        for name in ("phase_difference", "phase_difference_sigma")
    )
    path = folder / "06-seams.png"
    picture_seams(path, phase, sigma, _pair_labels(source, SEAMS), sideways)
    return [path]


def _draw_interferogram(
    folder: Path, stack: Stack, source: Source, _summaries: Summaries, _options: Any
) -> list[Path]:
    path = folder / "07-interferogram.png"
    grid = _grid(stack, stack.scene.looks)
    _draw_pairs(path, source, (INTERFEROGRAM, INTERFEROGRAM), grid, "Interferograms")
    return [path]


def _draw_filter(
    folder: Path, stack: Stack, source: Source, summaries: Summaries, _options: Any
) -> list[Path]:
    if not summaries["filter"]:
        return []
    path = folder / "08-filter.png"
    grid = _grid(stack, stack.scene.looks)
    _draw_pairs(path, source, (FILTERED, INTERFEROGRAM), grid, "Filtered interferograms")
    return [path]


def _draw_geocode(
    folder: Path, stack: Stack, source: Source, summaries: Summaries, _options: Any
) -> list[Path]:
    if not summaries["geocode"]:
        return []
    y = source.read(GEOCODED, "y", (slice(None),))
    x = source.read(GEOCODED, "x", (slice(None),))
    # Degrees of longitude shrink with latitude; metres stand far from zero.
    degrees = bool(np.abs(x).max() <= 360.0 and np.abs(y).max() <= 90.0)
    steps = (abs(float(y[0] - y[1])), float(x[1] - x[0])) if min(len(x), len(y)) > 1 else (1.0, 1.0)
    scale = (111_200.0, 111_200.0 * float(np.cos(np.radians(y.mean())))) if degrees else (1.0, 1.0)
    path = folder / "09-geocode.png"
    grid = RadarGrid(steps[0] * scale[0], steps[1] * scale[1])
    _draw_pairs(path, source, (GEOCODED, GEOCODED), grid, "Interferograms on the map, north up")
    return [path]


def _draw_pairs(
    path: Path, source: Source, products: tuple[str, str], grid: RadarGrid, title: str
) -> None:
    """Draw a contact sheet of phases of one product and coherences of another."""
    from bperp.flows.pictures import picture_interferograms

    labels = _pair_labels(source, products[0])
    chosen = np.unique(np.linspace(0, len(labels) - 1, 24).round().astype(int))
    images = [
        [
            source.read(product, name, (slice(int(p), int(p) + 1), slice(None), slice(None)))
            for p in chosen
        ]
        for product, name in zip(products, ("phase", "coherence"), strict=True)
    ]
    phase, coherence = (np.concatenate(rows) for rows in images)
    names = [labels[p] for p in chosen]
    picture_interferograms(path, phase, coherence, names, grid=grid, title=title)


def _draw_scatterers(
    folder: Path,
    stack: Stack,
    source: Source,
    summaries: Summaries,
    options: Mapping[str, Mapping[str, Any]],
) -> list[Path]:
    from bperp.flows.pictures import picture_amplitude, picture_scatterers

    def read(name: str) -> Callable[[tuple[int, int, int, int]], NDArray[Any]]:
        return lambda w: source.read(AMPLITUDE, name, (slice(w[0], w[1]), slice(w[2], w[3])))

    grid = _grid(stack, _factors(stack))
    mean = folder / "10-amplitude.png"
    picture_amplitude(mean, _averaged(stack, read("mean_amplitude")), grid=grid)
    path = folder / "11-scatterers.png"
    gamma = source.read(SCATTERERS, "phase_noise", (slice(None),))
    limit = options["amplitude"]["max_amplitude_dispersion"]
    dispersion = _thinned(stack, read("amplitude_dispersion"))
    picture_scatterers(path, dispersion, limit, gamma[np.isfinite(gamma)], grid=grid)
    return [mean, path]


def _draw_timeseries(
    folder: Path, stack: Stack, source: Source, summaries: Summaries, _options: Any
) -> list[Path]:
    from bperp.flows.pictures import picture_series, picture_velocity_map

    def read(name: str) -> NDArray[Any]:
        return source.read(TIMESERIES, name, (slice(None),))

    velocity, lon, lat = 1000 * read("velocity_los"), read("longitude"), read("latitude")
    sigma, area = 1000 * read("velocity_sigma"), read("reference_mask") > 0
    point = (float(lon[area].mean()), float(lat[area].mean())) if area.any() else None
    files = [folder / "12-velocity.png", folder / "12-series.png"]
    note = f"reference date {stack.reference_date}"
    picture_velocity_map(files[0], lon, lat, velocity, sigma, reference_point=point, note=note)
    rows = _typical_extremes(velocity, read("temporal_coherence"))
    series = [
        1000 * source.read(TIMESERIES, "displacement", (slice(r, r + 1), slice(None)))[0]
        for r in rows
    ]
    if series:
        labels = [f"{lat[r]:.4f}, {lon[r]:.4f}" for r in rows]
        picture_series(files[1], stack.dates, np.array(series), labels=labels)
    return files[: 1 + bool(series)]


def _typical_extremes(velocity: NDArray[Any], coherence: NDArray[Any]) -> list[int]:
    """Return the rows at the 1st and 99th percentile of velocity in the more coherent half.

    The very first and last are outliers of the unwrapping more often than ground that moves.
    """
    known = np.flatnonzero(np.isfinite(velocity) & np.isfinite(coherence))
    if not known.size:
        return []
    better = known[np.argsort(-coherence[known], kind="stable")][: (known.size + 1) // 2]
    order = better[np.argsort(velocity[better], kind="stable")]
    places = [round(share * (order.size - 1)) for share in (0.01, 0.99)]
    return list(dict.fromkeys(int(order[place]) for place in places))


def _draw_publish(
    folder: Path,
    stack: Stack,
    source: Source,
    summaries: Summaries,
    options: Mapping[str, Mapping[str, Any]],
) -> list[Path]:
    from bperp.flows.picture_grid import picture_published

    if not summaries["publish"]:
        return []

    def read(level: int, name: str) -> NDArray[Any]:
        return source.read(OVERVIEWS, f"{level}/{name}", ())

    # The coarsest level is shorter than this.
    level = 0
    while max(len(read(level, name)) for name in ("x", "y")) > LARGEST:
        level += 1
    path = folder / "13-publish.png"
    x, y = read(level, "x"), read(level, "y")
    picture_published(
        path,
        x,
        y,
        1000 * read(level, "velocity_los"),
        1000 * read(level, "displacement"),
        latest=str(read(level, "date").astype("datetime64[D]")),
        is_geographic=bool(np.abs(x).max() <= 360.0 and np.abs(y).max() <= 90.0),
        note=f"reference date {stack.reference_date}",
    )
    return [path]


_DRAW: dict[str, Callable[..., list[Path]]] = {
    "ingest": _draw_ingest,
    "geometry": _draw_geometry,
    "alignment": _draw_alignment,
    "coregister": _draw_coregister,
    "seams": _draw_seams,
    "interferogram": _draw_interferogram,
    "filter": _draw_filter,
    "geocode": _draw_geocode,
    "scatterers": _draw_scatterers,
    "timeseries": _draw_timeseries,
    "publish": _draw_publish,
}
