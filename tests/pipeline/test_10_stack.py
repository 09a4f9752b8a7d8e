"""The stack: placement on one grid, cuts, overlaps, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from bperp.pipeline.baseline import center_baseline_m
from bperp.pipeline.burst import BurstImage
from bperp.pipeline.pairs import pairs_by_date, select_pairs
from bperp.pipeline.reference import choose_reference
from bperp.pipeline.scene import SceneReader, tile_windows
from bperp.pipeline.stack import Stack, arrange_scene
from bperp.stores.errors import StackError

MakeBurst = Callable[..., BurstImage]
LINE_NS = 2_055_556.3


def four_bursts(make: MakeBurst) -> list[BurstImage]:
    """Two swaths of two bursts; the second swath starts 0.4 line and 250 samples later."""
    bursts = []
    for column, swath in enumerate(("IW1", "IW2")):
        for row in range(2):
            lines = 150 * row + 20.4 * column
            bursts.append(
                make(
                    burst_id=f"t001_00000{row + 1}_{swath.lower()}",
                    swath=swath,
                    first_line_time_ns=1_672_531_200_000_000_000 + round(lines * LINE_NS),
                    slant_range_time_s=5.343e-3 + column * 250 / 64.34523812571428e6,
                )
            )
    return bursts


def test_bursts_lie_on_one_integer_grid_with_the_remainder_left_in_their_times(
    make_burst: MakeBurst,
) -> None:
    scene = arrange_scene(four_bursts(make_burst), (4, 20))
    places = {place.burst_id: place for place in scene.placements}
    assert [(p.azimuth, p.range) for p in scene.placements] == [
        (0, 0),
        (150, 0),
        (20, 250),
        (170, 250),
    ]
    assert (scene.lines, scene.samples) == (370, 550)
    # Valid lines 150+10 .. 190 overlap: middle 175, nearest multiple of 4 looks 176.
    assert places["t001_000001_iw1"].owned[1] == places["t001_000002_iw1"].owned[0] == 176
    # Valid samples 255 .. 290 overlap: middle 272.5, nearest multiple of 20 looks 280.
    assert places["t001_000001_iw1"].owned[3] == places["t001_000001_iw2"].owned[2] == 280


def test_owned_rectangles_never_overlap_and_leave_no_gap_between_bursts(
    make_burst: MakeBurst,
) -> None:
    scene = arrange_scene(four_bursts(make_burst), (4, 20))
    owners = np.zeros((scene.lines, scene.samples), np.int64)
    valid = np.zeros_like(owners)
    for place in scene.placements:
        owners[place.owned[0] : place.owned[1], place.owned[2] : place.owned[3]] += 1
        valid[place.valid[0] : place.valid[1], place.valid[2] : place.valid[3]] = 1
    assert owners.max() == 1
    # Nothing that some burst of its own swath sees is lost inside the common rows.
    assert owners[30:330, 6:280].all()
    assert owners[40:350, 280:530].all()


def test_overlaps_are_between_successive_bursts_of_one_swath(make_burst: MakeBurst) -> None:
    bursts = four_bursts(make_burst)
    images = {(image.burst_id, image.date): image for image in bursts}
    stack = Stack("2023-01-01", ("2023-01-01",), images, arrange_scene(bursts, (4, 20)))
    found = [(o.upper, o.lower, o.rectangle) for o in stack.overlaps()]
    assert found == [
        ("t001_000001_iw1", "t001_000002_iw1", (160, 190, 5, 290)),
        ("t001_000001_iw2", "t001_000002_iw2", (180, 210, 255, 540)),
    ]


def test_a_stack_survives_json(make_burst: MakeBurst) -> None:
    bursts = four_bursts(make_burst)
    images = {(image.burst_id, image.date): image for image in bursts}
    stack = Stack("2023-01-01", ("2023-01-01",), images, arrange_scene(bursts, (4, 20)))
    assert Stack.from_dict(json.loads(json.dumps(stack.as_dict()))) == stack


def test_swaths_of_different_sampling_are_refused(make_burst: MakeBurst) -> None:
    bursts = four_bursts(make_burst)
    bursts[2] = dataclasses.replace(bursts[2], azimuth_time_interval_s=2.1e-3)
    with pytest.raises(StackError, match=r"S410.*azimuth_time_interval_s.*fix:"):
        arrange_scene(bursts, (4, 20))


def test_baseline_of_a_sensor_moved_to_the_look_side(make_burst: MakeBurst) -> None:
    # Heading north and looking right (east), 100 m to the east: B_perp = 100 cos(look).
    reference, secondary = make_burst(), make_burst(west_m=-100.0)
    radius, distance = 6378137.0 + 700e3, 0.5 * 299792458.0 * 5.343e-3
    cosine = (radius**2 + distance**2 - 6378137.0**2) / (2 * radius * distance)
    assert center_baseline_m(reference, secondary) == pytest.approx(100 * cosine, abs=0.5)
    # Raised by 100 m: B_perp = -n sin(look) with n = -100 (positive down).
    raised = make_burst(up_m=100.0)
    assert center_baseline_m(reference, raised) == pytest.approx(
        100 * np.sqrt(1 - cosine**2), abs=0.5
    )


def test_reference_date_is_central_in_time_and_baseline(make_burst: MakeBurst) -> None:
    dates = ("2020-01-01", "2021-01-01", "2022-01-01")
    images = {
        ("t001_000001_iw1", date): make_burst(date=date, west_m=shift)
        for date, shift in zip(dates, (0.0, -400.0, 10.0), strict=True)
    }
    # The middle date is 400 m away from both others, so one of the others wins.
    assert choose_reference(images, dates) == "2020-01-01"
    images["t001_000001_iw1", dates[1]] = make_burst(date=dates[1])
    assert choose_reference(images, dates) == "2021-01-01"


def test_networks() -> None:
    dates = ["2023-01-01", "2023-01-13", "2023-01-25", "2023-02-06"]
    single = select_pairs(dates, dates[1], network="single_reference", neighbours=1)
    assert single == [(dates[1], dates[k]) for k in (0, 2, 3)]
    nearest = select_pairs(dates, dates[1], network="nearest", neighbours=2)
    expected = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert nearest == [(dates[first], dates[second]) for first, second in expected]


def test_a_further_date_makes_a_group_of_its_own() -> None:
    dates = ["2023-01-01", "2023-01-13", "2023-01-25", "2023-02-06", "2023-02-18"]

    def groups(used: list[str], network: str) -> dict[str, list[tuple[str, str]]]:
        pairs = select_pairs(used, dates[2], network=network, neighbours=2)
        return pairs_by_date(pairs, dates[2])

    for network in ("single_reference", "nearest"):
        whole = groups(dates, network)
        assert sum(map(len, whole.values())) == {"single_reference": 4, "nearest": 7}[network]
        for end in (0, 4):
            without = [date for date in dates if date != dates[end]]
            part = groups(without, network)
            assert dates[end] not in part
            assert part == {date: pairs for date, pairs in whole.items() if date != dates[end]}


def test_tiles_cover_an_image_once() -> None:
    seen = np.zeros((1000, 700), np.int64)
    keys = set()
    for key, (top, bottom, left, right) in tile_windows((1000, 700), (512, 256)):
        seen[top:bottom, left:right] += 1
        keys.add(key)
    assert seen.min() == seen.max() == 1
    assert len(keys) == 6


class _Memory:
    """A source whose bursts hold their own index in every pixel."""

    def __init__(self, values: dict[str, int]) -> None:
        self.values = values

    def read(self, product: str, variable: str, region: tuple[slice, ...]) -> np.ndarray:
        region = (slice(0, 1), *region[1:]) if isinstance(region[0], str) else region
        shape = [piece.stop - piece.start for piece in region]
        kind = np.int16 if variable == "slc" else np.float32
        assert min(piece.start for piece in region) >= 0
        return np.full(shape, self.values[product.split("/")[1]], kind)


def test_scene_windows_take_each_pixel_from_its_owner(make_burst: MakeBurst) -> None:
    scene = arrange_scene(four_bursts(make_burst), (4, 20))
    index = {place.burst_id: number + 1 for number, place in enumerate(scene.placements)}
    reader = SceneReader(_Memory(index), scene.as_dict())  # type: ignore[arg-type]
    window = (150, 220, 240, 330)
    image = reader.slc(window, "2023-01-01")
    assert image.shape == (70, 90)
    assert image[25, 39] == 1 + 1j  # line 175, sample 279: first burst of the first swath
    assert image[26, 39] == 2 + 2j
    assert image[25, 40] == 3 + 3j
    assert image[69, 89] == 4 + 4j
    owners = reader.owners(window)
    assert np.array_equal(owners + 1, image.real)
    assert np.isnan(reader.geometry((0, 5, 0, 5), "height")).all()
