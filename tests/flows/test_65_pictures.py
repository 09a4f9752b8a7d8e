"""Pictures: what they say, which way colours go, and that odd inputs still give a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from bperp.flows import picture_style
from bperp.flows.picture_style import as_days, reduce_image, robust_limits, symmetric_limit
from bperp.flows.pictures import (
    GriddedMap,
    RadarGrid,
    picture_alignment,
    picture_amplitude,
    picture_geometry,
    picture_interferograms,
    picture_scatterers,
    picture_series,
    picture_velocity_map,
    picture_velocity_truth,
)
from bperp.flows.step_pictures import _typical_extremes

RANDOM = np.random.default_rng(7)


@pytest.fixture(name="drawn")
def fixture_drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures, as they are when they are saved."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    original = Figure.savefig

    def savefig(self: Any, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        original(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(path))[..., :3]


# --- numbers behind the pictures -----------------------------------------------------------------


def test_reduction_averages_blocks_and_skips_missing_pixels() -> None:
    image = np.arange(36, dtype=np.float32).reshape(6, 6)
    image[0, 0] = np.nan
    image[4:, 4:] = np.nan
    reduced, extent = reduce_image(image, limit=3)
    assert extent == (6, 6)
    assert reduced.shape == (3, 3)
    assert reduced[0, 0] == pytest.approx((1 + 6 + 7) / 3)
    assert reduced[1, 1] == pytest.approx((14 + 15 + 20 + 21) / 4)
    assert np.isnan(reduced[2, 2])


def test_reduction_reads_strips_and_keeps_what_fits() -> None:
    class Lazy:
        shape = (5000, 1000)
        largest = 0

        def __getitem__(self, rows: slice) -> np.ndarray:
            index = np.arange(*rows.indices(5000), dtype=float)
            Lazy.largest = max(Lazy.largest, index.size)
            return np.repeat(index[:, None], 1000, axis=1)

    reduced, extent = reduce_image(Lazy(), limit=500)
    assert extent == (5000, 1000)
    np.testing.assert_allclose(reduced[:, 0], 10 * np.arange(500) + 4.5)
    assert Lazy.largest <= 2000
    small, _ = reduce_image(np.ones((3, 4)), limit=500)
    assert small.shape == (3, 4)


def test_phases_are_averaged_as_phasors() -> None:
    """Two phases on both sides of pi average to pi, not to zero."""
    phase = np.array([[3.1, -3.1], [3.1, -3.1]])
    reduced, _ = reduce_image(np.exp(1j * phase), limit=1)
    assert abs(np.angle(reduced[0, 0])) == pytest.approx(math.pi)


@pytest.mark.parametrize(
    ("values", "limit"),
    [([0.0, 7.2, -3.0], 8.0), ([-0.012], 0.015), ([np.nan], 1.0), ([0.0], 1.0), ([-22.4], 25.0)],
)
def test_limits_of_velocity_are_symmetric_and_round(values: list[float], limit: float) -> None:
    assert symmetric_limit(np.array(values), 100.0) == pytest.approx(limit)


def test_limits_ignore_outliers_and_missing_values() -> None:
    values = np.concatenate([np.linspace(0.0, 1.0, 1001), [1e9, np.nan, -1e9]])
    low, high = robust_limits(values)
    assert low == pytest.approx(0.02, abs=0.01)
    assert high == pytest.approx(0.98, abs=0.01)
    assert robust_limits(np.array([np.nan])) == (0.0, 1.0)
    low, high = robust_limits(np.full(5, 3.0))
    assert low < 3.0 < high


def test_dates_are_understood_in_all_spellings() -> None:
    expected = np.array(["2023-09-04"], dtype="datetime64[D]")
    stamp = np.datetime64("2023-09-04T06:37:31.5", "ns")
    for date in ("20230904", "2023-09-04", stamp, np.datetime64("2023-09-04")):
        assert np.array_equal(as_days([date]), expected)


@pytest.mark.parametrize("direction", [1, -1])
def test_gridded_map_interpolates_like_an_independent_implementation(direction: int) -> None:
    lon, lat = np.linspace(-4.6, -4.0, 31), np.linspace(34.2, 34.6, 21)[::direction]
    values = RANDOM.normal(size=(21, 31))
    points = RANDOM.uniform([34.2, -4.6], [34.6, -4.0], size=(200, 2))
    interpolator = RegularGridInterpolator((lat[::direction], lon), values[::direction])
    computed = GriddedMap(lon, lat, values).at(points[:, 1], points[:, 0])
    np.testing.assert_allclose(computed, interpolator(points), atol=1e-9)
    outside = GriddedMap(lon, lat, values).at(np.array([-5.0, -4.3]), np.array([34.3, 35.0]))
    assert np.isnan(outside).all()
    corner = GriddedMap(lon, lat, values).at(lon[-1:], lat[-1:])
    assert corner[0] == pytest.approx(values[-1, -1], abs=1e-6)


# --- what the pictures show ----------------------------------------------------------------------


def test_velocity_colours_are_blue_towards_and_red_away(tmp_path: Path, drawn: list[Any]) -> None:
    count = 4000
    lon = RANDOM.uniform(4.0, 4.2, count)
    lat = RANDOM.uniform(52.0, 52.1, count)
    velocity = np.where(lon < 4.1, 10.0, -10.0)  # west rises, east sinks
    path = tmp_path / "velocity.png"
    picture_velocity_map(path, lon, lat, velocity, limit_mm_yr=12.0)
    axes = drawn[0].axes[0]
    box = axes.get_window_extent().bounds
    image = pixels(path)
    rows = slice(image.shape[0] - int(box[1] + box[3]), image.shape[0] - int(box[1]))
    middle = int(box[0] + box[2] / 2)
    west = image[rows, int(box[0]) : middle].mean(axis=(0, 1))
    east = image[rows, middle : int(box[0] + box[2])].mean(axis=(0, 1))
    assert west[2] > west[0] + 0.15, "positive velocity must be blue"
    assert east[0] > east[2] + 0.15, "negative velocity must be red"
    words = texts(drawn[0])
    assert "mm/yr" in words
    assert "towards satellite +" in words
    assert "4,000 scatterers" in words


def test_map_has_the_aspect_of_its_latitude(tmp_path: Path, drawn: list[Any]) -> None:
    lon, lat = np.array([10.0, 10.4]), np.array([59.9, 60.1])
    picture_velocity_map(tmp_path / "velocity.png", lon, lat, np.zeros(2))
    axes = drawn[0].axes[0]
    bounds = axes.get_window_extent().bounds
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    # One degree of longitude is half as long as one of latitude at 60 degrees north.
    ratio = (bounds[2] / (east - west)) / (bounds[3] / (north - south))
    assert ratio == pytest.approx(math.cos(math.radians(60.0)), rel=0.01)


@pytest.mark.parametrize("width", [0.004, 0.07, 0.163, 0.4, 12.0])
@pytest.mark.parametrize("west", [-120.333, 8.317])
def test_longitudes_do_not_overlap_in_narrow_maps(
    tmp_path: Path, drawn: list[Any], west: float, width: float
) -> None:
    lon, lat = np.array([west, west + width]), np.array([30.0, 30.0 + 2.5 * width])
    picture_velocity_truth(tmp_path / "truth.png", lon, lat, np.zeros(2), np.zeros(2))
    for axes in drawn[0].axes[:2]:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert boxes, "a map needs at least one longitude"
        for one, other in itertools.pairwise(boxes):
            assert one.x1 + 3 < other.x0
        for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
            assert float(label.get_text()[:-2]) == pytest.approx(abs(tick), abs=1e-9)


def test_scale_bar_has_the_length_it_says(tmp_path: Path, drawn: list[Any]) -> None:
    lon, lat = np.array([10.0, 10.4]), np.array([59.9, 60.1])
    picture_velocity_map(tmp_path / "velocity.png", lon, lat, np.zeros(2))
    axes = drawn[0].axes[0]
    bar = axes.lines[-1].get_xdata()
    label = next(text.get_text() for text in axes.texts if text.get_text().endswith("km"))
    metres = (bar[1] - bar[0]) * math.cos(math.radians(59.9)) * 111.32
    assert float(label.split()[0]) == pytest.approx(metres, rel=0.01)


def test_bias_and_error_against_truth_are_in_the_title(tmp_path: Path, drawn: list[Any]) -> None:
    grid_lon, grid_lat = np.linspace(4.0, 4.2, 21), np.linspace(52.0, 52.1, 11)
    truth = GriddedMap(grid_lon, grid_lat, 100.0 * np.add.outer(grid_lat - 52.0, grid_lon - 4.0))
    count = 5001
    lon, lat = RANDOM.uniform(4.01, 4.19, count), RANDOM.uniform(52.01, 52.09, count)
    error = np.where(np.arange(count) % 2, 1.0, -2.0)
    estimate = 100.0 * (lat - 52.0 + lon - 4.0) + error
    estimate[7] = np.nan
    picture_velocity_truth(tmp_path / "truth.png", lon, lat, estimate, truth)
    kept = np.delete(error, 7)
    words = texts(drawn[0])
    assert f"bias −{abs(kept.mean()):.2f}" in words
    assert f"RMSE {math.sqrt(np.mean(kept**2)):.2f} mm/yr" in words
    assert "5,000 scatterers" in words
    assert {"Estimate", "Truth"} <= set(words.split("\n"))


def test_truth_at_points_needs_no_grid(tmp_path: Path, drawn: list[Any]) -> None:
    values = RANDOM.normal(size=50)
    lon, lat = RANDOM.uniform(4.0, 4.1, 50), RANDOM.uniform(52.0, 52.1, 50)
    picture_velocity_truth(tmp_path / "truth.png", lon, lat, values, values)
    assert "bias +0.00 · RMSE 0.00" in texts(drawn[0])


def test_series_states_the_rate_with_its_sign(tmp_path: Path, drawn: list[Any]) -> None:
    dates = np.datetime64("2021-01-01") + 12 * np.arange(61)
    years = 12 * np.arange(61) / 365.25
    series = np.stack([-7.25 * years + 3.0, 2.5 * years])
    series[0, 5] = np.nan
    sigma = np.full((2, 61), 1.0)
    picture_series(tmp_path / "series.png", dates, series, sigma, ["A", "B"])
    words = texts(drawn[0])
    assert "A  −7.25 mm/yr" in words
    assert "B  +2.50 mm/yr" in words
    assert "displacement (mm)" in words


def test_dates_without_an_estimate_are_told_apart(tmp_path: Path, drawn: list[Any]) -> None:
    dates = ["20230101", "20230113", "20230125", "20230206"]
    shifts = np.array([[0.0, 0.0], [0.004, 0.02], [0.0, -0.03], [-0.002, 0.01]])
    sigmas = np.array([[0.0, 0.0], [4e-4, 3e-3], [np.inf, 3e-3], [5e-4, 2e-3]])
    picture_alignment(
        tmp_path / "alignment.png", dates, shifts, sigmas, [0, 85, -40, 12], reference_date=dates[0]
    )
    azimuth, range_panel, baseline = drawn[0].axes
    assert "geometry only" in texts(azimuth)
    assert "geometry only" not in texts(range_panel)
    points = np.asarray(baseline.lines[1].get_ydata(), dtype=float)
    assert points.tolist() == [0.0, 85.0, -40.0, 12.0]
    estimates = next(line for line in azimuth.lines if len(line.get_xdata()) == 3)
    assert np.asarray(estimates.get_ydata()) == pytest.approx([0.0, 4.0, -2.0])


def test_range_panel_is_left_out_without_any_estimate(tmp_path: Path, drawn: list[Any]) -> None:
    shifts, sigmas = np.zeros((3, 2)), np.full((3, 2), np.inf)
    dates = ["20230101", "20230113", "20230125"]
    picture_alignment(tmp_path / "alignment.png", dates, shifts, sigmas, [0, 85, -40])
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == [
        "Azimuth shift (10⁻³ line)",
        "Perpendicular baseline (m)",
    ]


def test_contact_sheet_has_one_tile_per_pair_and_a_cyclic_bar(
    tmp_path: Path, drawn: list[Any]
) -> None:
    phase = RANDOM.uniform(-math.pi, math.pi, size=(5, 30, 40)).astype(np.float32)
    coherence = RANDOM.uniform(0, 1, size=(5, 30, 40)).astype(np.float32)
    labels = [f"pair {number}" for number in range(5)]
    picture_interferograms(tmp_path / "sheet.png", phase, coherence, labels)
    words = texts(drawn[0]).split("\n")
    assert [word for word in words if word.startswith("pair")] == labels
    assert {"−π", "π", "phase (rad)", "coherence"} <= set(words)
    images = [axes.images[0] for axes in drawn[0].axes if axes.images]
    assert len(images) == 10
    colors = images[0].get_cmap()([0.0, 1.0])
    assert np.abs(colors[0] - colors[1]).max() < 0.02, "the phase map must close at pi"


@pytest.mark.parametrize(
    ("pairs", "shape"), [(11, (207, 24)), (11, (25, 100)), (7, (75, 225)), (23, (50, 200))]
)
def test_contact_sheet_is_well_filled(
    tmp_path: Path, drawn: list[Any], pairs: int, shape: tuple[int, int]
) -> None:
    phase = np.zeros((pairs, *shape))
    grid = RadarGrid(56.0, 79.0)
    picture_interferograms(tmp_path / "sheet.png", phase, phase, ["a / b"] * pairs, grid=grid)
    tiles = [axes for axes in drawn[0].axes if axes.images]
    hidden = [axes for axes in drawn[0].axes if not axes.get_visible()]
    assert len(tiles) == 2 * pairs
    assert len(hidden) <= 0.2 * len(tiles)


def test_contact_sheet_says_how_many_pairs_it_leaves_out(tmp_path: Path, drawn: list[Any]) -> None:
    phase = np.zeros((40, 8, 9))
    labels = [str(number) for number in range(40)]
    picture_interferograms(tmp_path / "sheet.png", phase, None, labels, maximum_pairs=6)
    assert "6 of 40 pairs shown" in texts(drawn[0])


def test_radar_images_have_their_shape_on_the_ground(tmp_path: Path, drawn: list[Any]) -> None:
    grid = RadarGrid(azimuth_spacing_m=14.0, range_spacing_m=3.5)
    picture_amplitude(tmp_path / "amplitude.png", np.ones((200, 800)), grid=grid)
    bounds = drawn[0].axes[0].get_window_extent().bounds
    assert bounds[2] / bounds[3] == pytest.approx((800 * 3.5) / (200 * 14.0), rel=0.01)


@pytest.mark.parametrize("thinning", [1, 4])
def test_radar_axes_are_kilometres_however_thin_the_raster(
    tmp_path: Path, drawn: list[Any], thinning: int
) -> None:
    grid = RadarGrid(14.0 * thinning, 4.0 * thinning)
    image = np.ones((2000, 3000))[::thinning, ::thinning]
    picture_amplitude(tmp_path / "amplitude.png", image, grid=grid)
    axes = drawn[0].axes[0]
    assert sorted(axes.get_xlim()) == pytest.approx([0.0, 12.0])
    assert sorted(axes.get_ylim()) == pytest.approx([0.0, 28.0])
    assert axes.get_xlabel() == "ground range (km)"
    assert "azimuth (km" in axes.get_ylabel()


@pytest.mark.parametrize(("ascending", "corner"), [(None, (0, 0)), (True, (1, 0)), (False, (0, 1))])
def test_radar_images_turn_north_up(
    tmp_path: Path, drawn: list[Any], ascending: bool | None, corner: tuple[int, int]
) -> None:
    """Line 0, sample 0 is upper left; lower left on ascending; upper right on descending."""
    image = np.full((90, 90), 1.0)
    image[:30, :30] = 100.0
    grid = RadarGrid(10.0, 10.0, ascending)
    path = tmp_path / "amplitude.png"
    picture_amplitude(path, image, grid=grid)
    picture = pixels(path).mean(axis=2)
    left, bottom, width, height = (int(v) for v in drawn[0].axes[0].get_window_extent().bounds)
    top = picture.shape[0] - bottom - height
    rows = [top + height // 6, top + 5 * height // 6]
    columns = [left + width // 6, left + 5 * width // 6]
    bright = [(r, c) for r in (0, 1) for c in (0, 1) if picture[rows[r], columns[c]] > 0.9]
    assert bright == [corner]


def test_selection_states_the_share_of_the_whole_raster(tmp_path: Path, drawn: list[Any]) -> None:
    dispersion = np.full((300, 400), 0.6)
    dispersion[10:20, 10:30] = 0.2
    dispersion[100] = np.nan
    gamma = np.concatenate([np.full(30, 0.9), np.full(20, 0.4)])
    path = tmp_path / "scatterers.png"
    picture_scatterers(path, dispersion, 0.4, gamma, gamma_threshold=0.7)
    words = texts(drawn[0])
    assert "0.2% below 0.4" in words  # 200 of 119,600 valid pixels
    assert "30 scatterers above 0.7" in words


def test_geometry_names_height_and_incidence(tmp_path: Path, drawn: list[Any]) -> None:
    height = np.add.outer(np.arange(40.0), np.arange(50.0))
    picture_geometry(tmp_path / "geometry.png", height, np.full((40, 50), 38.0))
    words = texts(drawn[0])
    assert "ellipsoidal height (m)" in words
    assert "incidence angle (°)" in words


def test_series_of_typical_extremes_leave_out_outliers_and_incoherent_points() -> None:
    velocity = np.arange(1000.0)  # row = velocity
    coherence = np.where(np.arange(1000) % 2, 0.9, 0.3)  # odd rows are the better half
    velocity[[1, 999]] = 9e9, -9e9  # coherent outliers
    velocity[[500, 501]] = np.nan
    slow, fast = _typical_extremes(velocity, coherence)
    assert slow % 2 == fast % 2 == 1
    assert 5 <= slow <= 20
    assert 980 <= fast <= 995
    assert _typical_extremes(np.array([np.nan, 2.0]), np.ones(2)) == [1]
    assert _typical_extremes(np.array([np.nan]), np.ones(1)) == []


def test_files_are_small_and_their_colours_are_kept(tmp_path: Path, drawn: list[Any]) -> None:
    """Noise in one colour map takes a palette, a smooth relief does not."""
    from PIL import Image

    noise, relief = tmp_path / "noise.png", tmp_path / "relief.png"
    picture_amplitude(noise, RANDOM.rayleigh(size=(300, 900)))
    smooth = np.sin(np.add.outer(np.linspace(0, 9, 300), np.linspace(0, 7, 900)))
    picture_geometry(relief, 500 * smooth, 38 + smooth)
    for path, figure, mode in ((noise, drawn[0], "P"), (relief, drawn[1], "RGB")):
        with Image.open(path) as image:
            assert image.mode == mode
            assert image.info["Software"] == "bperp"
        full = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255.0
        assert np.abs(pixels(path) - full).max() <= 5.5 / 255.0


# --- robustness ----------------------------------------------------------------------------------

NOTHING = np.full((6, 8), np.nan)
ODD: dict[str, Callable[[Path], None]] = {
    "amplitude of zeros": lambda path: picture_amplitude(path, np.zeros((6, 8))),
    "amplitude 1 x 1": lambda path: picture_amplitude(path, np.ones((1, 1))),
    "geometry without heights": lambda path: picture_geometry(path, NOTHING, NOTHING),
    "geometry of one line": lambda path: picture_geometry(path, np.ones((1, 9)), np.ones((1, 9))),
    "no scatterer": lambda path: picture_velocity_map(path, [], [], []),
    "one scatterer": lambda path: picture_velocity_map(path, [4.9], [52.3], [3.0], [0.3]),
    "scatterers in a row": lambda path: picture_velocity_map(path, [4.9, 5.9], [52.3] * 2, [3, 1]),
    "equator and west": lambda path: picture_velocity_map(path, [-0.1, 0.1], [-0.1, 0.1], [0, 0]),
    "all velocities missing": lambda path: picture_velocity_map(path, [4.9], [52.3], [np.nan]),
    "no truth": lambda path: picture_velocity_truth(path, [4.9], [52.3], [1.0], [np.nan]),
    "empty series": lambda path: picture_series(path, ["20230101", "20230113"], [np.nan] * 2),
    "one date": lambda path: picture_series(path, ["20230101"], [1.0], [0.5], "P1"),
    "nothing selected": lambda path: picture_scatterers(path, NOTHING, 0.4, []),
    "one pair without data": lambda path: picture_interferograms(path, NOTHING[None], None, ["a"]),
    "alignment of one date": lambda path: picture_alignment(
        path, ["20230101"], [[0, 0]], [[np.nan, np.nan]], [0]
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs_still_give_a_picture(tmp_path: Path, name: str) -> None:
    path = tmp_path / "picture.png"
    ODD[name](path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
    height, width = pixels(path).shape[:2]
    assert 100 < height < 2000
    assert 100 < width < 2500


def test_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    lon, lat = RANDOM.uniform(4.0, 4.1, 900), RANDOM.uniform(52.0, 52.1, 900)
    velocity = RANDOM.normal(size=900)
    for name in ("a.png", "b.png"):
        picture_velocity_map(tmp_path / name, lon, lat, velocity)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_many_points_are_thinned_without_favouring_a_place() -> None:
    order = picture_style.thin_points(1_000_000)
    assert order.size == picture_style.MAXIMUM_POINTS
    assert np.unique(order).size == order.size
    assert abs(order.mean() / 1_000_000 - 0.5) < 0.005
    assert np.array_equal(np.sort(picture_style.thin_points(10)), np.arange(10))
