"""Solid Earth tide: against the IERS test case, another implementation, an almanac and physics."""

from __future__ import annotations

import numpy as np
import pytest

from bperp.kernels.solid_tide import (
    body_tide_m,
    frequency_tide_m,
    solid_tide_enu_m,
    sun_moon_ecef_m,
)

# Header of the IERS routine DEHANTTIDEINEL (Conventions 2010, chapter 7): input and output. The
# vectors of Sun and Moon are inputs; they are not where the bodies were on that date.
STATION = np.array([4075578.385, 931852.890, 4801570.154])
SUN = np.array([137859926952.015, 54228127881.4350, 23509422341.6960])
MOON = np.array([-179996231.920342, -312468450.131567, -169288918.592160])
DATE = "2009-04-13T00:00"
TIDE = np.array([0.7700420357108125891e-1, 0.6304056321824967613e-1, 0.5516568152597246810e-1])

# pysolid 0.3.4 (solid.for by D. Milbert): UTC, latitude, longitude (deg), east, north, up (mm).
PYSOLID = [
    ("2023-09-04T06:00", 31.7, -8.4, -41.61, -18.98, 86.78),
    ("2023-09-04T13:00", 31.7, -8.4, 22.07, -35.75, 0.83),
    ("2023-09-16T06:00", 31.7, -8.4, -26.00, -3.05, -127.40),
    ("2020-03-21T01:00", 0.5, 100.2, 48.87, -19.44, 57.71),
    ("2020-03-21T08:00", 0.5, 100.2, -45.70, -7.62, -16.40),
    ("2016-06-20T20:00", -35.3, 149.1, -30.60, -8.79, -120.49),
    ("2018-12-22T04:00", 64.1, -21.9, -61.20, -41.82, 16.21),
    ("2025-01-14T11:00", 78.2, 15.6, -3.09, 27.35, -136.72),
    ("2019-07-03T17:00", -77.8, 166.7, -52.79, 35.98, -49.22),
    ("2022-11-08T03:00", 19.4, -155.3, -15.82, -5.48, -141.46),
    ("2022-11-08T15:00", 19.4, -155.3, -43.74, 10.11, -98.78),
    ("2030-05-03T09:00", 45.0, 10.0, 53.83, -25.71, 88.63),
]

# astropy 8.0.2, built-in ephemeris, ITRS: UTC since 1970, Sun in 1e9 m, Moon in 1e6 m.
ASTROPY = [
    (1401003040.6015, (56.2999, 129.8208, 54.1749), (341.035, 158.402, 60.595)),
    (1528894364.9173, (135.9510, -31.8166, 59.9033), (326.289, -100.695, 118.282)),
    (1667225799.5038, (113.0454, -89.1542, -36.4825), (221.716, 250.023, -158.200)),
    (1853842734.8421, (148.4830, -18.7424, -7.1447), (-251.343, 305.170, -83.059)),
]


def unix_s(text: str) -> float:
    return float((np.datetime64(text, "s") - np.datetime64("1970-01-01", "s")).astype(np.int64))


def test_the_published_case_of_the_conventions():
    moment = unix_s(DATE)
    tide = body_tide_m(STATION, SUN, MOON) + frequency_tide_m(STATION, moment)
    np.testing.assert_allclose(tide, TIDE, rtol=0, atol=2e-5)
    # Without the second step the difference is millimetres: the case does test it.
    assert np.abs(body_tide_m(STATION, SUN, MOON) - TIDE).max() > 5e-3


@pytest.mark.parametrize(("text", "latitude", "longitude", "east", "north", "up"), PYSOLID)
def test_another_implementation(
    text: str, latitude: float, longitude: float, east: float, north: float, up: float
):
    tide = solid_tide_enu_m(unix_s(text), np.radians(latitude), np.radians(longitude))
    np.testing.assert_allclose(1e3 * tide, [east, north, up], rtol=0, atol=0.8)


@pytest.mark.parametrize(("moment", "sun", "moon"), ASTROPY)
def test_sun_and_moon_are_where_the_almanac_has_them(
    moment: float, sun: tuple[float, ...], moon: tuple[float, ...]
):
    for ours, theirs in zip(sun_moon_ecef_m(moment), (sun, moon), strict=True):
        scale = 1e9 if theirs is sun else 1e6
        truth = np.array(theirs) * scale
        assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(truth), rel=2e-4)
        across = np.cross(ours, truth) / np.linalg.norm(ours) / np.linalg.norm(truth)
        assert np.degrees(np.linalg.norm(across)) < 0.03


@pytest.mark.parametrize("latitude_deg", [0.0, 45.0])
def test_the_largest_tide_is_the_moons_twice_a_day(latitude_deg: float):
    moments = unix_s("2023-03-01") + 3600 * np.arange(0.0, 60 * 24.0)
    up = solid_tide_enu_m(moments, np.radians(latitude_deg), 0.3)[2]
    assert 0.2 < np.ptp(up) < 0.7
    power = np.abs(np.fft.rfft((up - up.mean()) * np.hanning(up.size)))
    assert np.argmax(power) / 60 == pytest.approx(24 / 12.4206, abs=1 / 60)  # M2


def test_no_daily_tide_at_the_pole():
    moments = unix_s("2023-03-01") + 3600 * np.arange(0.0, 60 * 24.0)
    up = solid_tide_enu_m(moments, np.radians(89.99), 0.3)[2]
    assert np.abs(np.diff(up)).max() < 2e-3


@pytest.mark.parametrize("latitude_deg", [0.0, 30.0, -50.0, 85.0])
def test_the_permanent_tide_is_included(latitude_deg: float):
    # Mean over one turn of the Moon's node; IERS Conventions 2010, (7.14a) and (7.14b).
    moments = unix_s("2010-06-01") + 86400.0 * np.linspace(0, 6798.38, 20011)
    latitude = np.radians(latitude_deg)
    _, north, up = solid_tide_enu_m(moments, latitude, 0.4).mean(axis=1)
    zonal = 1.5 * np.sin(latitude) ** 2 - 0.5
    assert up == pytest.approx((-0.1206 + 0.0001 * zonal) * zonal, abs=1.5e-3)
    expected = (-0.0252 - 0.0001 * zonal) * np.sin(2 * latitude)
    assert north == pytest.approx(expected, abs=1e-3)


def test_times_and_places_broadcast():
    moments = unix_s("2024-02-03") + np.array([0.0, 3600.0])[:, np.newaxis]
    latitude, longitude = np.array([0.1, 0.5, -0.9]), np.array([3.0, -2.0, 0.0])
    both = solid_tide_enu_m(moments, latitude, longitude)
    assert both.shape == (3, 2, 3)
    alone = solid_tide_enu_m(float(moments[1, 0]), -0.9, 0.0)
    np.testing.assert_allclose(both[:, 1, 2], alone, rtol=0, atol=1e-12)
