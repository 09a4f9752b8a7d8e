"""Layover and shadow: ridges with known slopes, and a count of the ground on each range arc."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bperp.kernels.ellipsoid import geodetic_to_ecef
from bperp.kernels.geometry import geo2rdr, rdr2geo_at_height
from bperp.kernels.layover import LAYOVER, SHADOW, layover_shadow
from bperp.kernels.orbit import OrbitPolynomial, evaluate_orbit, fit_orbit

TIMES = np.arange(-60.0, 70.0, 10.0)
AZIMUTH_S = np.arange(0.0, 6.0) * 2.0555563e-3
PIXEL_M = 2.3295621
STEP_DEG = 2.5e-5


@pytest.fixture(scope="module")
def orbit(orbit_states: Callable) -> OrbitPolynomial:
    return fit_orbit(TIMES, *orbit_states(TIMES)[:2], -1.0, 4.0)


@dataclass
class Site:
    """Closed forms in the zero-Doppler plane over a sphere that fits the ellipsoid at the foot.

    ``ground`` is the distance along the sphere of each sample of the height grid from the point
    whose range at sea level is ``foot_m``; all of the sphere's angles follow from the law of
    cosines.
    """

    satellite_m: float
    radius_m: float
    foot_m: float
    origin: tuple[float, float, float, float]
    ground: np.ndarray
    right: bool

    def angle(self, range_m: float | np.ndarray) -> np.ndarray:
        """Angle at the Earth's centre of a range at sea level."""
        d, r = self.satellite_m, self.radius_m
        return np.arccos((d**2 + r**2 - np.square(range_m)) / (2 * d * r))

    def range(self, ground_m: float, height_m: float) -> float:
        d, r = self.satellite_m, self.radius_m + height_m
        turn = self.angle(self.foot_m) + ground_m / self.radius_m
        return float(np.sqrt(d**2 + r**2 - 2 * d * r * np.cos(turn)))

    def look(self, ground_m: float, height_m: float) -> float:
        d, r = self.satellite_m, self.radius_m + height_m
        turn = self.angle(self.foot_m) + ground_m / self.radius_m
        return float(np.arctan2(r * np.sin(turn), d - r * np.cos(turn)))

    def incidence(self, ground_m: float, height_m: float = 0.0) -> float:
        turn = float(self.angle(self.foot_m)) + ground_m / self.radius_m
        return self.look(ground_m, height_m) + turn

    def landing(self, look: float) -> float:
        """Range at which a look angle reaches sea level."""
        d, r = self.satellite_m, self.radius_m
        return float(d * np.cos(look) - np.sqrt(r**2 - (d * np.sin(look)) ** 2))

    def ridge(self, height_m: float, front: float, back: float) -> np.ndarray:
        """Heights of a ridge along the flight, its foot at ``foot_m``; slopes in rad."""
        rise = self.ground * np.tan(front)
        fall = height_m - (self.ground - height_m / np.tan(front)) * np.tan(back)
        return np.clip(np.minimum(rise, fall), 0.0, height_m).astype(np.float32)


def make_site(orbit: OrbitPolynomial, foot_m: float, *, right: bool) -> Site:
    half = 0.5 * AZIMUTH_S[-1]
    latitude, longitude = rdr2geo_at_height(
        orbit, np.array([half]), np.array([foot_m]), np.zeros(1), right=right
    )
    north, west = np.degrees(latitude[0]) + 0.004, np.degrees(longitude[0]) - 0.02
    rows, columns = np.mgrid[0:320, 0:1600]
    latitudes, longitudes = north - rows * STEP_DEG, west + columns * STEP_DEG
    points = geodetic_to_ecef(np.radians(latitudes), np.radians(longitudes), np.zeros(rows.shape))
    _, range_m = geo2rdr(orbit, *(axis.ravel() for axis in points), half)
    satellite = float(np.linalg.norm(evaluate_orbit(orbit, half)[0]))
    center = geodetic_to_ecef(latitude, longitude, np.zeros(1))
    site = Site(
        satellite,
        float(np.linalg.norm(np.stack(center))),
        foot_m,
        (north, west, -STEP_DEG, STEP_DEG),
        np.empty(0),
        right,
    )
    turn = site.angle(range_m.reshape(rows.shape)) - site.angle(foot_m)
    site.ground = turn * site.radius_m
    return site


@pytest.fixture(scope="module", params=[(8.3e5, True), (8.8e5, False)], ids=["near", "far-left"])
def site(request: pytest.FixtureRequest, orbit: OrbitPolynomial) -> Site:
    foot_m, right = request.param
    return make_site(orbit, foot_m, right=right)


def ranges_around(site: Site, before_m: float, behind_m: float) -> np.ndarray:
    count = int((before_m + behind_m) / PIXEL_M)
    return site.foot_m - before_m + PIXEL_M * np.arange(count)


def mask_of(orbit: OrbitPolynomial, site: Site, heights: np.ndarray) -> tuple:
    ranges = ranges_around(site, 200.0, 350.0)
    return ranges, layover_shadow(orbit, AZIMUTH_S, ranges, heights, site.origin, right=site.right)


def require_interval(flags: np.ndarray, ranges: np.ndarray, low: float, high: float) -> None:
    """Every line is flagged from low to high, but for 1.5 pixels at the ends, and only there."""
    slack = 1.5 * PIXEL_M
    inner = (ranges > low + slack) & (ranges < high - slack)
    outer = (ranges < low - slack) | (ranges > high + slack)
    assert inner.any()
    assert flags[:, inner].all()
    assert not flags[:, outer].any()


def test_flat_ground_has_neither(orbit: OrbitPolynomial, site: Site) -> None:
    heights = np.full(site.ground.shape, 432.1, np.float32)
    assert not mask_of(orbit, site, heights)[1].any()


@pytest.mark.parametrize("degrees", [-2.0, 2.0, 12.0])
def test_front_slope_lays_over_if_it_is_steeper_than_the_incidence(
    orbit: OrbitPolynomial, site: Site, degrees: float
) -> None:
    height = 300.0 if degrees < 12.0 else 100.0
    front = site.incidence(0.0) + np.radians(degrees)
    ranges, mask = mask_of(orbit, site, site.ridge(height, front, np.radians(20.0)))
    assert not (mask & SHADOW).any()
    if degrees < 0.0:
        assert not mask.any()
        return
    top = site.range(height / np.tan(front), height)
    assert site.foot_m - top > 4 * PIXEL_M
    require_interval((mask & LAYOVER) > 0, ranges, top, site.foot_m)


@pytest.mark.parametrize("degrees", [-2.0, 2.0, 12.0])
def test_back_slope_is_dark_if_it_is_steeper_than_the_line_of_sight(
    orbit: OrbitPolynomial, site: Site, degrees: float
) -> None:
    height, front = 150.0, np.radians(15.0)
    crest = height / np.tan(front)
    back = np.pi / 2 - site.incidence(crest) + np.radians(degrees)
    ranges, mask = mask_of(orbit, site, site.ridge(height, front, back))
    assert not (mask & LAYOVER).any()
    if degrees < 0.0:
        assert not mask.any()
        return
    top, end = site.range(crest, height), site.landing(site.look(crest, height))
    require_interval((mask & SHADOW) > 0, ranges, top, end)


def test_a_ridge_outside_the_image_falls_into_it(orbit: OrbitPolynomial, site: Site) -> None:
    front = site.incidence(0.0) + np.radians(12.0)
    heights = site.ridge(150.0, front, np.radians(60.0))
    ranges, mask = mask_of(orbit, site, heights)
    # Neither the foot nor the crest of the ridge has a pixel in these windows.
    top = site.range(150.0 / np.tan(front), 150.0)
    for low, high in ((top + 5.0, top + 15.0), (site.foot_m + 20.0, site.foot_m + 60.0)):
        part = (ranges > low) & (ranges < high)
        found = layover_shadow(
            orbit, AZIMUTH_S, ranges[part], heights, site.origin, right=site.right
        )
        assert found.any()
        assert np.array_equal(found, mask[:, part])


@pytest.fixture(scope="module")
def rough(orbit: OrbitPolynomial) -> tuple[Site, np.ndarray]:
    site = make_site(orbit, 8.3e5, right=True)
    field = gaussian_filter(np.random.default_rng(5).normal(size=site.ground.shape), 35)
    field -= field.min()
    return site, (field * (800.0 / field.max())).astype(np.float32)


def test_layover_is_where_a_range_arc_meets_the_ground_more_than_once(
    orbit: OrbitPolynomial, rough: tuple[Site, np.ndarray]
) -> None:
    site, heights = rough
    ranges = ranges_around(site, 400.0, 300.0)
    mask = layover_shadow(orbit, AZIMUTH_S[:1], ranges, heights, site.origin)
    # Independent of profiles: the sign of (ground - arc) on a ladder of heights along each arc.
    ladder = np.arange(-1.0, 802.0, 1.0)
    arc, rung = np.meshgrid(ranges, ladder, indexing="ij")
    latitude, longitude = rdr2geo_at_height(
        orbit, np.full(arc.size, AZIMUTH_S[0]), arc.ravel(), rung.ravel()
    )
    row = (np.degrees(latitude) - site.origin[0]) / site.origin[2]
    column = (np.degrees(longitude) - site.origin[1]) / site.origin[3]
    above = bilinear(heights, row, column).reshape(arc.shape) > rung
    crossings = np.count_nonzero(above[:, 1:] != above[:, :-1], axis=1)
    assert 0.05 < np.mean(crossings > 1) < 0.8
    lit = (mask[0] & SHADOW) == 0
    assert lit.mean() > 0.5
    wrong = ((mask[0] & LAYOVER) > 0) != (crossings > 1)
    # Grazing arcs, whose ladder is too coarse, may differ.
    assert np.mean(wrong[lit]) < 0.01


def bilinear(heights: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    values = heights.astype(np.float64)
    down, across = rows - r, columns - c
    upper = values[r, c] * (1 - across) + values[r, c + 1] * across
    lower = values[r + 1, c] * (1 - across) + values[r + 1, c + 1] * across
    return np.asarray(upper * (1 - down) + lower * down)


def test_tiles_are_identical(orbit: OrbitPolynomial, rough: tuple[Site, np.ndarray]) -> None:
    site, heights = rough
    ranges = ranges_around(site, 400.0, 300.0)
    whole = layover_shadow(orbit, AZIMUTH_S, ranges, heights * 3, site.origin)
    assert (whole & LAYOVER).any()
    assert (whole & SHADOW).any()
    for lines in (slice(0, 2), slice(2, 6)):
        for samples in (slice(0, 1), slice(1, 130), slice(130, None)):
            part = layover_shadow(
                orbit, AZIMUTH_S[lines], ranges[samples], heights * 3, site.origin
            )
            assert np.array_equal(part, whole[lines, samples])


def test_unknown_heights_are_neither_lit_nor_dark(orbit: OrbitPolynomial, site: Site) -> None:
    front = site.incidence(0.0) + np.radians(12.0)
    heights = site.ridge(150.0, front, np.radians(80.0))
    assert mask_of(orbit, site, heights)[1].any()
    heights[site.ground > -30.0] = np.nan
    assert not mask_of(orbit, site, heights)[1].any()


def test_refusals(orbit: OrbitPolynomial, site: Site) -> None:
    flat = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="at least 2 rows"):
        layover_shadow(orbit, AZIMUTH_S, np.array([8e5]), flat[:1], site.origin)
    with pytest.raises(ValueError, match="must increase"):
        layover_shadow(orbit, AZIMUTH_S, np.array([8e5, 8e5]), flat, site.origin)
    with pytest.raises(ValueError, match="NaN only"):
        layover_shadow(orbit, AZIMUTH_S, np.array([8e5]), flat * np.nan, site.origin)
    with pytest.raises(ValueError, match="off nadir"):
        layover_shadow(orbit, AZIMUTH_S, np.array([5e5]), flat, site.origin)
    assert layover_shadow(orbit, AZIMUTH_S[:0], np.array([8e5]), flat, site.origin).shape == (0, 1)
