"""The timing model of a burst: switches, signs in an image, external grids, and real sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bperp.flows.config import StackConfig
from bperp.flows.stack_index import index_stack
from bperp.kernels.solid_tide import solid_tide_enu_m
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.stack import Stack
from bperp.pipeline.timing import CORRECTIONS, DelayGrid, timing_corrections, timing_offsets
from bperp.stores.errors import ElevationError, ProductError

MakeBurst = Callable[..., BurstImage]
ALL = dict.fromkeys(CORRECTIONS, True)
LINE = np.array([0.0, 100.0, 199.0])
SAMPLE = np.array([0.0, 150.0, 299.0])
HEIGHT = np.array([0.0, 400.0, 1500.0])
NEW_FIELDS = (
    "rank", "chirp_rate_hz_s", "mid_swath_range_time_s", "bistatic_delay_corrected"
)  # fmt: skip


def grid_over(image: BurstImage, kind: str = "ionosphere", turn: float = 0.0) -> DelayGrid:
    """Return delays that are planes in latitude and longitude, over the test's polar orbit."""
    latitude, longitude = np.linspace(-0.1, 0.1, 5), np.linspace(-0.3, 0.3, 7) + turn
    plane = 2.0 + 3.0 * latitude[:, np.newaxis] - 4.0 * (longitude - turn)
    return DelayGrid(kind, 1e-5 * plane, plane, latitude, longitude)


def test_each_correction_is_switched_and_recorded(make_burst: MakeBurst):
    image = make_burst()
    none = timing_corrections(image, LINE, SAMPLE, HEIGHT, {"bistatic": False})
    assert none.names == ()
    assert not none.azimuth_s.any()
    assert not none.range_m.any()
    every = timing_corrections(image, LINE, SAMPLE, HEIGHT, ALL)
    assert every.names == CORRECTIONS
    total = np.zeros(3)
    for name in CORRECTIONS:
        alone = timing_corrections(image, LINE, SAMPLE, HEIGHT, {name: True})
        assert alone.names == (name,)
        np.testing.assert_array_equal(alone.azimuth_s, every.parts[name][0])
        np.testing.assert_array_equal(alone.range_m, every.parts[name][1])
        assert alone.azimuth_s.any() or alone.range_m.any()
        total += alone.azimuth_s
    np.testing.assert_allclose(every.azimuth_s, total, rtol=1e-14)
    # Which of them act where.
    assert not every.parts["bistatic"][1].any()
    assert not every.parts["fm_mismatch"][1].any()
    assert not every.parts["doppler_range"][0].any()


def test_an_unknown_option_is_refused(make_burst: MakeBurst):
    with pytest.raises(ValueError, match="solid_tides"):
        timing_corrections(make_burst(), LINE, SAMPLE, HEIGHT, {"solid_tides": True})


def test_positions_broadcast_and_unknown_heights_stay_unknown(make_burst: MakeBurst):
    heights = np.array([[100.0, np.nan, 100.0]])
    result = timing_corrections(make_burst(), LINE[:, np.newaxis], SAMPLE, heights, ALL)
    assert result.azimuth_s.shape == (3, 3)
    assert np.isnan(result.azimuth_s[:, 1]).all()
    assert np.isfinite(result.azimuth_s[:, [0, 2]]).all()
    # The bistatic correction needs no ground.
    assert np.isfinite(result.parts["bistatic"][0]).all()


def test_late_lines_look_forward_and_lie_farther_than_annotated(make_burst: MakeBurst):
    # TOPS turns the beam from aft to fore: at the end of a burst targets approach (f > 0).
    image = make_burst(lines=1500, valid=(10, 1490, 5, 290))
    ends = timing_corrections(image, np.array([0.0, 1499.0]), 150.0, 0.0, {"doppler_range": True})
    assert -0.5 < ends.range_m[0] < -0.3
    assert 0.3 < ends.range_m[1] < 0.5


def test_tide_is_projected_on_the_line_of_sight(make_burst: MakeBurst):
    # A polar orbit over longitude 0 that heads north and looks right, that is east: at the equator
    # the line of sight from the ground is up and west, the track is north.
    image = make_burst()
    part = timing_corrections(image, 0.0, 0.0, 0.0, {"solid_tide": True}).parts["solid_tide"]
    middle_s = image.first_line_time_ns * 1e-9 + 0.2
    earth, orbit = 6378137.0, 7078137.0
    distance = image.near_range_m
    angle = np.arccos((earth**2 + orbit**2 - distance**2) / (2 * earth * orbit))
    east, north, up = solid_tide_enu_m(middle_s, 0.0, angle)
    sine = orbit * np.sin(angle) / distance
    toward = np.sqrt(1 - sine**2) * up - sine * east
    assert part[1] == pytest.approx(toward, abs=2e-4)
    ground_speed = 7504.0 * earth / orbit
    assert part[0] == pytest.approx(-north / ground_speed, abs=1e-7)
    assert abs(north) > 5e-3


def test_what_the_annotation_lacks_is_refused_with_its_name(make_burst: MakeBurst):
    image = make_burst(mid_swath_range_time_s=None)
    with pytest.raises(ProductError, match=r"D313 .*mid_swath_range_time_s.*IW2") as error:
        timing_corrections(image, LINE, SAMPLE, HEIGHT, ALL)
    assert image.burst_id in str(error.value)
    rest = dict.fromkeys(("doppler_range", "fm_mismatch", "solid_tide"), True)
    assert timing_corrections(image, LINE, SAMPLE, HEIGHT, rest).names == tuple(rest)
    with pytest.raises(ProductError, match=r"D313 .*chirp_rate_hz_s"):
        timing_corrections(make_burst(chirp_rate_hz_s=None), 0.0, 0.0, 0.0, {"doppler_range": True})


def test_a_processor_that_subtracted_nothing_gets_nothing_back(make_burst: MakeBurst):
    options = {"bistatic": True}
    with_it = timing_corrections(make_burst(), LINE, SAMPLE, HEIGHT, options)
    bare = make_burst(bistatic_delay_corrected=False, mid_swath_range_time_s=None)
    without = timing_corrections(bare, LINE, SAMPLE, HEIGHT, options)
    np.testing.assert_allclose(with_it.azimuth_s - without.azimuth_s, 0.5 * 5.8527e-3, rtol=1e-12)


def test_records_from_before_these_fields_still_load(make_burst: MakeBurst):
    image = make_burst()
    assert BurstImage.from_dict(json.loads(json.dumps(image.as_dict()))) == image
    old = {name: value for name, value in image.as_dict().items() if name not in NEW_FIELDS}
    loaded = BurstImage.from_dict(old)
    assert [getattr(loaded, name) for name in NEW_FIELDS] == [None] * 4
    assert timing_corrections(loaded, LINE, SAMPLE, HEIGHT, {"solid_tide": True}).names


@pytest.mark.parametrize("turn", [0.0, 2 * np.pi])
def test_delays_are_interpolated_and_subtracted(make_burst: MakeBurst, turn: float):
    image = make_burst()
    grid = grid_over(image, turn=turn)
    result = timing_corrections(image, LINE, SAMPLE, 0.0, {}, [grid])
    assert result.names == (grid.name,)
    # Ground of the first pixel: the equator, east of the orbit (as in the test of the tide).
    earth, orbit = 6378137.0, 7078137.0
    angle = np.arccos((earth**2 + orbit**2 - image.near_range_m**2) / (2 * earth * orbit))
    assert result.range_m[0] == pytest.approx(-(2.0 - 4.0 * angle), abs=1e-6)
    np.testing.assert_allclose(result.azimuth_s, 1e-5 * result.range_m, rtol=1e-9)


def test_the_name_of_a_grid_follows_its_numbers(make_burst: MakeBurst):
    grid = grid_over(make_burst())
    assert grid.name.startswith("ionosphere:")
    assert grid.name == grid_over(make_burst()).name
    assert grid.range_m is not None
    other = grid.range_m.copy()
    other[2, 3] += 1e-9
    axes = grid.latitude_rad, grid.longitude_rad
    assert DelayGrid("ionosphere", grid.azimuth_s, other, *axes).name != grid.name
    assert DelayGrid("ionosphere", None, grid.range_m, *axes).name != grid.name


def test_a_grid_that_does_not_cover_the_burst_is_refused(make_burst: MakeBurst):
    image, axis = make_burst(), np.linspace(0.5, 0.6, 3)
    away = DelayGrid("troposphere", None, np.zeros((3, 3)), axis, axis)
    with pytest.raises(ElevationError, match=r"E607 t001_000001_iw1 of 2023.*troposphere") as error:
        timing_corrections(image, LINE, SAMPLE, 0.0, {}, [away])
    assert "28.6479 to 34.3775" in str(error.value)
    holed = grid_over(image)
    assert holed.range_m is not None
    holed.range_m[:] = np.nan
    with pytest.raises(ElevationError, match="E607"):
        timing_corrections(image, LINE, SAMPLE, 0.0, {}, [holed])
    # Positions without ground need no delay.
    unknown = timing_corrections(image, LINE, SAMPLE, np.nan, {}, [away])
    assert np.isnan(unknown.range_m).all()


@pytest.mark.parametrize(
    ("axis", "shape"), [([0.0, 0.0, 1.0], (3, 3)), ([1.0], (1, 1)), ([0.0, 0.5, 1.0], (3, 2))]
)
def test_malformed_grids_are_refused(axis: list[float], shape: tuple[int, int]):
    with pytest.raises(ValueError, match="must have"):
        DelayGrid("ionosphere", None, np.zeros(shape), np.array(axis), np.array(axis))


def test_an_image_has_no_offset_to_itself(make_burst: MakeBurst):
    image = make_burst()
    grids = [grid_over(image)]
    azimuth, distance = timing_offsets(image, image, LINE, SAMPLE, HEIGHT, ALL, (grids, grids))
    assert np.abs(azimuth).max() < 1e-8
    assert np.abs(distance).max() < 1e-7


def test_offsets_are_the_differences_of_corrections(make_burst: MakeBurst):
    reference = make_burst()
    # 2 us more subtracted by the processor of the secondary: annotated 1 us earlier.
    secondary = make_burst(mid_swath_range_time_s=5.8547e-3, date="2023-01-13")
    azimuth, distance = timing_offsets(
        reference, secondary, LINE, SAMPLE, HEIGHT, {"bistatic": True}
    )
    np.testing.assert_allclose(azimuth, -1e-6 / reference.azimuth_time_interval_s, rtol=1e-6)
    np.testing.assert_allclose(distance, 0.0, atol=1e-7)
    secondary = make_burst(west_m=80.0, date="2023-01-13")
    # Half a metre of delay on the secondary only: its points are imaged farther away.
    axes = np.linspace(-0.1, 0.1, 3), np.linspace(-0.3, 0.3, 3)
    late = DelayGrid("troposphere", None, np.full((3, 3), 0.5), *axes)
    azimuth, distance = timing_offsets(reference, secondary, LINE, SAMPLE, HEIGHT, {}, ([], [late]))
    np.testing.assert_allclose(distance, 0.5 / reference.range_spacing_m, rtol=1e-9)
    np.testing.assert_allclose(azimuth, 0.0, atol=1e-9)
    # The same on the reference moves the ground that the pixel stands for nearer.
    _, distance = timing_offsets(reference, secondary, LINE, SAMPLE, HEIGHT, {}, ([late], []))
    np.testing.assert_allclose(distance, -0.5 / reference.range_spacing_m, rtol=5e-4)


@pytest.fixture(scope="module")
def morocco(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    config = StackConfig.from_values(
        {
            "root": str(tmp_path_factory.mktemp("root")),
            "slc": [str(real_data / "eo_tools-morocco-2023" / "S1" / "*.SAFE")],
            "orbits": {"folders": [], "policy": "allow_predicted"},
            "dem": {"path": "none.tif"},
            "swaths": ["IW1", "IW2", "IW3"],
            "reference_date": "2023-09-04",
        }
    )
    return index_stack(config).stack


@pytest.mark.realdata
@pytest.mark.parametrize("swath", ["IW1", "IW2", "IW3"])
def test_sizes_on_real_annotation(morocco: Stack, swath: str):
    burst = [name for name in morocco.burst_ids if name.endswith(swath.lower())][4]
    image, other = (morocco.images[burst, date] for date in morocco.dates)
    line = np.linspace(0, image.lines - 1, 5)[:, np.newaxis]
    sample = np.linspace(0, image.samples - 1, 4)
    speed_m_s = 6800.0
    low = timing_corrections(image, line, sample, 0.0, ALL)
    high = timing_corrections(image, line, sample, 1000.0, ALL)
    bistatic_m = speed_m_s * low.parts["bistatic"][0]
    # Gisinger et al. (2021): some metres, with steps from swath to swath, by less than 1 m within.
    assert (bistatic_m > -1).all()
    assert (bistatic_m < 4).all()
    assert 1.0 < np.ptp(bistatic_m[0]) < 1.5
    shift = low.parts["doppler_range"][1]
    assert (shift[0] < -0.35).all()
    assert (shift[-1] > 0.35).all()
    assert np.abs(shift).max() < 0.5
    assert np.abs(shift[2]).max() < 0.01  # beam centre crosses zero Doppler in the middle
    mismatch_m = speed_m_s * (high.parts["fm_mismatch"][0] - low.parts["fm_mismatch"][0])
    # About a metre per kilometre of height at the ends, of opposite sign, nothing in between.
    np.testing.assert_allclose(mismatch_m[0], 1.0, atol=0.2)
    np.testing.assert_allclose(mismatch_m[-1], -1.0, atol=0.2)
    assert np.abs(mismatch_m[2]).max() < 0.03
    assert np.abs(speed_m_s * low.parts["fm_mismatch"][0]).max() < 3.0
    azimuth_s, range_m = low.parts["solid_tide"]
    assert np.abs(speed_m_s * azimuth_s).max() < 0.1
    assert np.abs(range_m).max() < 0.3
    lines, samples = timing_offsets(
        image, other, line.repeat(4), np.tile(sample, 5), np.full(20, 500.0), ALL
    )
    assert np.abs(lines).max() < 5e-3
    assert 0.03 < np.abs(samples).max() < 0.1  # 0.14 m between the tides of the two dates
