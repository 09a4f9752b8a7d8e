"""WGS84 conversions against pyproj and against the definition of the ellipsoid."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from bperp.kernels.ellipsoid import (
    SEMI_MAJOR_AXIS_M,
    SEMI_MINOR_AXIS_M,
    ecef_to_geodetic,
    geodetic_from_point,
    geodetic_to_ecef,
    point_from_geodetic,
)


def positions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    latitude = np.arcsin(generator.uniform(-1.0, 1.0, 500))
    longitude = generator.uniform(-np.pi, np.pi, 500)
    height = np.concatenate([generator.uniform(-500, 9000, 400), generator.uniform(6e5, 9e5, 100)])
    return latitude, longitude, height


def test_agrees_with_proj() -> None:
    latitude, longitude, height = positions()
    project = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    expected = project.transform(np.degrees(longitude), np.degrees(latitude), height)
    np.testing.assert_allclose(geodetic_to_ecef(latitude, longitude, height), expected, atol=5e-9)


def test_inverse_is_exact_to_nanometres_up_to_the_orbit() -> None:
    latitude, longitude, height = positions()
    back = ecef_to_geodetic(*geodetic_to_ecef(latitude, longitude, height))
    assert np.abs(back[0] - latitude).max() * 6.4e6 < 1e-8
    assert np.abs(back[1] - longitude).max() * 6.4e6 < 1e-8
    assert np.abs(back[2] - height).max() < 1e-8


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((SEMI_MAJOR_AXIS_M + 10.0, 0.0, 0.0), (0.0, 0.0, 10.0)),
        ((0.0, 0.0, SEMI_MINOR_AXIS_M + 10.0), (np.pi / 2, 0.0, 10.0)),
        ((0.0, 0.0, -SEMI_MINOR_AXIS_M), (-np.pi / 2, 0.0, 0.0)),
        ((-SEMI_MAJOR_AXIS_M, 0.0, 0.0), (0.0, np.pi, 0.0)),
    ],
)
def test_axes_and_poles(
    point: tuple[float, float, float], expected: tuple[float, float, float]
) -> None:
    np.testing.assert_allclose(geodetic_from_point(*point), expected, atol=1e-9)


def test_python_body_equals_compiled_code() -> None:
    arguments = (0.4, -2.0, 1234.0)
    compiled = point_from_geodetic(*arguments)
    assert point_from_geodetic.py_func(*arguments) == pytest.approx(compiled, abs=1e-9)  # type: ignore[attr-defined]


def test_broadcasts() -> None:
    x, y, z = geodetic_to_ecef(np.zeros((3, 1)), np.zeros(4), np.array(0.0))
    assert x.shape == y.shape == z.shape == (3, 4)
