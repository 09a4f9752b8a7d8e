"""What all pictures share: figure, colours, limits, and reduction of large rasters.

Colour maps are safe for colour-blind readers: cyclic for phase, sequential for one-sided
quantities, diverging and centred on zero for velocity. Missing data are grey, never a colour of
the map. matplotlib is imported when the first picture is drawn and always draws off screen.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bperp.stores.replace_file import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from matplotlib.text import Text

PHASE_MAP = "twilight_shifted"
VELOCITY_MAP = "RdYlBu"
HEIGHT_MAP = "cividis"
COHERENCE_MAP = "gray"
SIGMA_MAP = "cividis_r"
DISPERSION_MAP = "viridis_r"
ANGLE_MAP = "viridis"

MISSING = "#b9bdc2"
INK = "#22262b"
PALE = "#6b737c"
# Okabe and Ito's palette without its yellow, which is too faint for lines on white.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

MAXIMUM_PIXELS_PER_SIDE = 1400
MAXIMUM_POINTS = 250_000
LARGEST_COLOR_ERROR = 5
"""Of 255 levels; more is seen as bands in smooth colours."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.5,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": "#d9dde1",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "image.interpolation": "nearest",
    "savefig.facecolor": "white",
}


class Raster(Protocol):
    """Anything with a shape that is sliced by rows like an array: numpy, zarr, xarray."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in ``(azimuth, range)`` order."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows."""
        ...


@dataclass(frozen=True)
class RadarGrid:
    """How a radar image lies on the ground.

    Parameters
    ----------
    azimuth_spacing_m, range_spacing_m : float
        Ground distance of two lines and of two samples of the array that is drawn, m; they give
        the picture its shape and its axes in km.
    ascending : bool, optional
        Turns the picture roughly north up (Sentinel-1 looks to the right); without it, line 0 is
        at the top and sample 0 on the left.
    """

    azimuth_spacing_m: float = 13.9
    range_spacing_m: float = 3.7
    ascending: bool | None = None

    @property
    def aspect(self) -> float:
        """Height of a line over width of a sample."""
        return self.azimuth_spacing_m / self.range_spacing_m

    def size_km(self, extent: tuple[int, int]) -> tuple[float, float]:
        """Return the ground length along azimuth and range of that many lines and samples."""
        return (
            1e-3 * extent[0] * self.azimuth_spacing_m,
            1e-3 * extent[1] * self.range_spacing_m,
        )


@contextmanager
def picture(
    path: Path | str, size_in: tuple[float, float], title: str, note: str = ""
) -> Generator[Figure, None, None]:
    """Yield an empty figure that is written to ``path`` at the end of the block.

    Parameters
    ----------
    path : Path or str
        PNG file; it appears or is replaced when it is whole.
    size_in : (float, float)
        Width and height in inches at 150 dots per inch.
    title, note : str
        Heading, and a line of smaller text below it.

    Yields
    ------
    matplotlib.figure.Figure
        With constrained layout.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size_in, dpi=150)
        FigureCanvasAgg(figure)
        # Before anything is drawn: colour bars ask the engine for their room.
        figure.set_layout_engine("compressed", wspace=0.03)
        texts = [figure.text(0, 0, title, fontsize=13, fontweight="bold", va="top")]
        if note:
            texts.append(figure.text(0, 0, note, fontsize=9, color=PALE, va="top"))
        yield figure
        _fit(figure, texts)
        full = io.BytesIO()
        figure.savefig(full, format="png", pil_kwargs={"compress_level": 1})
        with replacing(path) as partial:
            _write_small(full, partial)


def _write_small(full: io.BytesIO, path: Path) -> None:
    """Write a picture with 256 colours, a third of the size, unless that would be seen.

    Speckle and noise in one colour map need no more; shaded heights and two maps in one picture
    would show bands and keep their colours.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "bperp")
    with Image.open(full) as image:
        colors = image.convert("RGB")
    # Maximum coverage bounds the error of every colour; median cut would move rare ones far.
    few = colors.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    error = np.abs(np.asarray(colors, np.int16) - np.asarray(few.convert("RGB"), np.int16))
    chosen = few if error.max() <= LARGEST_COLOR_ERROR else colors
    chosen.save(path, format="PNG", optimize=True, pnginfo=info)


def _fit(figure: Figure, texts: Sequence[Text]) -> None:
    """Cut the paper to the size of what is on it, and put the heading above.

    Images of fixed shape leave room on two sides of the paper that was guessed for them; one
    round removes it, the second one corrects for texts that do not shrink with it.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    margin, spacing = 0.1, 0.26
    head = margin + spacing * len(texts) + 0.02
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    for _ in range(2):
        width, height = figure.get_size_inches()
        engine.set(rect=(0.0, 0.0, 1.0, 1.0 - head / height))
        figure.draw_without_rendering()
        boxes = [axes.get_tightbbox() for axes in figure.axes if axes.get_visible()]
        drawn = [box for box in boxes if box is not None]
        used_width = (max(b.x1 for b in drawn) - min(b.x0 for b in drawn)) / figure.dpi
        used_height = (max(b.y1 for b in drawn) - min(b.y0 for b in drawn)) / figure.dpi
        needed = max(text.get_window_extent().width / figure.dpi for text in texts) + 2 * margin
        new_width = max(min(width, used_width + 2 * margin), needed)
        figure.set_size_inches(new_width, min(height, used_height + head + margin))
    width, height = figure.get_size_inches()
    engine.set(rect=(0.0, 0.0, 1.0, 1.0 - head / height))
    for number, text in enumerate(texts):
        text.set_position((margin / width, 1.0 - (margin + spacing * number) / height))


def color_map(name: str) -> Any:
    """Return a matplotlib colour map with grey for missing data."""
    import matplotlib as mpl

    return mpl.colormaps[name].with_extremes(bad=MISSING)


def color_bar(
    figure: Figure, image: ScalarMappable, axes: Axes | Sequence[Axes], label: str, **options: Any
) -> Any:
    """Add a slim colour bar with a label."""
    settings = {"shrink": 0.92, "aspect": 28, "pad": 0.015} | options
    bar = figure.colorbar(image, ax=axes, **settings)
    bar.set_label(label)
    bar.outline.set_linewidth(0.5)
    return bar


def reduce_image(
    image: Raster, limit: int = MAXIMUM_PIXELS_PER_SIDE
) -> tuple[NDArray[Any], tuple[int, int]]:
    """Average blocks of a raster until it fits on a screen.

    Parameters
    ----------
    image : array of shape (azimuth, range), real or complex
        Anything that is sliced by rows like an array; it is read strip by strip.
    limit : int
        Largest number of pixels per side.

    Returns
    -------
    reduced : ndarray of shape (rows, columns), float64 or complex128
        Mean of the finite pixels of each block, NaN where there is none.
    extent : (int, int)
        Lines and samples of the original that it covers (rests at the far edges are dropped).
    """
    lines, samples = image.shape
    down, across = max(1, math.ceil(lines / limit)), max(1, math.ceil(samples / limit))
    rows, columns = lines // down, samples // across
    is_complex = np.iscomplexobj(np.asarray(image[:1]))
    kind: type[np.generic] = np.complex128 if is_complex else np.float64
    reduced: NDArray[Any] = np.full((rows, columns), np.nan, dtype=kind)
    strip = max(1, 2_000_000 // max(samples * down, 1))
    for first in range(0, rows, strip):
        stop = min(rows, first + strip)
        block = np.asarray(image[first * down : stop * down])[:, : columns * across]
        block = block.reshape(stop - first, down, columns, across)
        good = np.isfinite(block)
        count = good.sum(axis=(1, 3))
        total = np.where(good, block, 0).sum(axis=(1, 3), dtype=kind)
        np.divide(total, count, out=reduced[first:stop], where=count > 0)
    return reduced, (rows * down, columns * across)


def show_radar(
    axes: Axes,
    image: NDArray[Any],
    extent: tuple[int, int],
    grid: RadarGrid,
    **options: Any,
) -> ScalarMappable:
    """Draw a reduced raster of ``extent`` original lines and samples, its axes in ground km."""
    along, across = grid.size_km(extent)
    drawn = axes.imshow(
        image, extent=(0, across, along, 0), aspect="equal", rasterized=True, **options
    )
    if grid.ascending is True:
        axes.invert_yaxis()
    if grid.ascending is False:
        axes.invert_xaxis()
    return drawn


def label_radar(axes: Axes, grid: RadarGrid, *, left: bool = True) -> None:
    """Name the axes of a radar image and thin out their ticks."""
    from matplotlib.ticker import MaxNLocator

    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    # The narrow side of a long strip has room for two or three numbers only.
    narrow = abs(east - west) < 0.35 * abs(north - south)
    steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(2 if narrow else 5, steps=steps))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=steps))
    axes.set_xlabel("ground range (km)")
    if left:
        suffix = "" if grid.ascending is None else ", north roughly up"
        axes.set_ylabel(f"azimuth (km{suffix})")


def robust_limits(
    values: NDArray[Any], low: float = 2.0, high: float = 98.0
) -> tuple[float, float]:
    """Return two percentiles of the finite values, at least a little apart; (0, 1) for none."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    least, most = (float(v) for v in np.percentile(finite, [low, high]))
    return (least, most) if most > least else (least - 0.5, least + 0.5)


def symmetric_limit(values: NDArray[Any], percentile: float = 99.0) -> float:
    """Return a round number that holds ``percentile`` of the magnitudes; 1 for no finite value."""
    magnitude = np.abs(np.asarray(values)[np.isfinite(values)])
    limit = float(np.percentile(magnitude, percentile)) if magnitude.size else 1.0
    if limit <= 0.0:
        return 1.0
    step = 10.0 ** math.floor(math.log10(limit))
    return next(step * f for f in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * f >= limit * 0.999)


def thin_points(count: int, limit: int = MAXIMUM_POINTS) -> NDArray[np.intp]:
    """Return the indices of points to draw, in an order that favours no part of the map."""
    # The same picture for the same data: a fixed seed.
    order = np.random.default_rng(20140403).permutation(count)
    return np.asarray(order[:limit], dtype=np.intp)


def say_empty(axes: Axes, text: str = "no valid data") -> None:
    """Write a sentence into axes that have nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=PALE)


def counted(number: float, noun: str) -> str:
    """Return a number with thousands separators and its noun, e.g. ``12,345 scatterers``."""
    return f"{int(number):,} {noun}{'' if int(number) == 1 else 's'}"


def as_days(dates: Iterable[Any]) -> NDArray[np.datetime64]:
    """Return days for datetime64 values, ``YYYY-MM-DD`` or ``YYYYMMDD`` text."""
    # numpy would take 20230904 for the year twenty million.
    dashed = [re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", str(date)) for date in dates]
    return np.array(dashed, dtype="datetime64[D]")


def date_axis(axes: Axes) -> None:
    """Give the horizontal axis short date labels that name the year once."""
    from matplotlib import dates

    locator: Any = dates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter: Any = dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def draw_bars(
    axes: Axes, counts: NDArray[Any], edges: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> None:
    """Draw a histogram without a vertical axis; bars that are not chosen are grey."""
    colors = np.where(chosen, LINES[0], "#c3c9cf").tolist()
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colors)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not np.any(counts):
        say_empty(axes)


def signed(value: float) -> str:
    """Return a number with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−")
