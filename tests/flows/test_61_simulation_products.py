"""The files of a simulated stack, parsed as plain XML, TIFF and Zarr: names, fields, bytes."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
from lxml import etree

from bperp.flows.simulation import PRESETS, SimulatedStack, SimulationOptions, simulate_stack
from bperp.flows.simulation_radar import BUILT_IN, geometric_fm_rate, read_template
from bperp.kernels.simulation.orbit import (
    SPEED_OF_LIGHT_M_S,
    fit_orbit,
    geodetic_to_ecef,
    zero_doppler,
)
from bperp.stores.errors import ConfigurationError


def _ns(text: str) -> int:
    return int(np.datetime64(text.removeprefix("UTC="), "ns").astype(np.int64))


def read_amplitude(product: Path, swath: str) -> tuple[np.ndarray, int, float]:
    """Amplitude of the first burst, its time and its near range time."""
    root = etree.parse(next(product.glob(f"annotation/s1a-{swath}-*.xml"))).getroot()
    image = tifffile.imread(next(product.glob(f"measurement/s1a-{swath}-*.tiff")))
    lines = int(root.findtext(".//linesPerBurst"))
    start = _ns(root.findtext(".//burst/azimuthTime"))
    return np.abs(image[:lines]), start, float(root.findtext(".//slantRangeTime"))


def read_orbit(path: Path, epoch_ns: int):
    """Fit the vectors of an orbit file near an epoch (seconds from it)."""
    times, states = [], []
    for vector in etree.parse(path).getroot().iter("OSV"):
        seconds = (_ns(vector.findtext("UTC")) - epoch_ns) * 1e-9
        if abs(seconds) < 60.0:
            times.append(seconds)
            states.append([float(vector.findtext(k)) for k in ("X", "Y", "Z", "VX", "VY", "VZ")])
    return fit_orbit(np.array(times), np.array(states), order=11)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SimulatedStack:
    return simulate_stack(tmp_path_factory.mktemp("tiny"))


def test_names_and_manifest_agree_with_the_files(tiny: SimulatedStack) -> None:
    assert len(tiny.products) == len(tiny.orbits) == 6
    product = tiny.products[0]
    assert product.name.startswith("S1A_IW_SLC__1SSV_20230105T0637")
    root = etree.parse(product / "manifest.safe").getroot()
    software = root.find(".//{http://www.esa.int/safe/sentinel-1.0}software")
    assert (software.get("name"), software.get("version")) == ("Sentinel-1 IPF", "003.61")
    entries = root.findall(".//dataObject")
    assert len(entries) == 4
    for entry in entries:
        path = product / entry.find(".//fileLocation").get("href")
        content = path.read_bytes()
        assert len(content) == int(entry.find("byteStream").get("size"))
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert digest == entry.findtext(".//checksum")
    orbit = next(root.iter("{http://www.esa.int/safe/sentinel-1.0}relativeOrbitNumber"))
    absolute = next(root.iter("{http://www.esa.int/safe/sentinel-1.0}orbitNumber"))
    assert orbit.text == "52"
    assert (int(absolute.text) - 73) % 175 + 1 == 52


def test_annotation_fields(tiny: SimulatedStack) -> None:
    product = tiny.products[1]
    annotation = next(product.glob("annotation/s1a-iw1-slc-vv-*.xml"))
    root = etree.parse(annotation).getroot()
    bursts = root.findall(".//burst")
    assert [b.findtext("burstId") for b in bursts] == [
        i.split("_")[1].lstrip("0") for i in tiny.burst_ids
    ]
    node = _ns(root.findtext(".//ascendingNodeTime"))
    half = 0.5 * 400 * float(root.findtext(".//azimuthTimeInterval"))
    for burst in bursts:
        middle = (_ns(burst.findtext("azimuthTime")) - node) * 1e-9 + half
        cycles = (middle + 51 * 12 * 86400 / 175 - 2.299849) / 2.758273
        assert int(burst.findtext("burstId")) == int(np.floor(cycles)) + 1
        first = burst.findtext("firstValidSample").split()
        assert len(first) == 400
        assert first[:20] == ["-1"] * 20
        assert first[20] == "12"
        assert first[-17:] == ["-1"] * 17
    size = 400 * 256 * 4
    offsets = [int(b.findtext("byteOffset")) for b in bursts]
    assert offsets[1] - offsets[0] == size
    content = next(product.glob("measurement/*.tiff")).read_bytes()
    assert offsets[1] + size == len(content)
    with tifffile.TiffFile(next(product.glob("measurement/*.tiff"))) as file:
        page = file.pages[0]
        assert file.byteorder == "<"
        assert page.dataoffsets[0] == offsets[0]
        assert page.rowsperstrip == 1
        image = page.asarray()
    raw = np.frombuffer(content, "<i2", offset=offsets[1]).reshape(400, 256, 2)
    np.testing.assert_array_equal(raw[..., 0], image[400:].real)
    assert not raw[:20].any()
    assert not raw[:, :12].any()
    assert not raw[:, -20:].any()
    assert raw[20:-17, 12:-20].any(axis=2).mean() > 0.999


def test_geolocation_grid_and_orbits_agree(tiny: SimulatedStack) -> None:
    product, file = tiny.products[2], tiny.orbits[2]
    root = etree.parse(next(product.glob("annotation/s1a-*.xml"))).getroot()
    epoch = _ns(root.findtext(".//burst/azimuthTime"))
    orbit = read_orbit(file, epoch)
    points = root.findall(".//geolocationGridPoint")
    values = np.array(
        [
            [float(p.findtext(k)) for k in ("latitude", "longitude", "height", "slantRangeTime")]
            for p in points
        ]
    )
    times = np.array([(_ns(p.findtext("azimuthTime")) - epoch) * 1e-9 for p in points])
    ground = geodetic_to_ecef(np.radians(values[:, 0]), np.radians(values[:, 1]), values[:, 2])
    time, distance = zero_doppler(orbit, ground, times)
    assert np.abs(time - times).max() < 1e-8
    assert np.abs(distance - 0.5 * SPEED_OF_LIGHT_M_S * values[:, 3]).max() < 1e-6
    # The annotated orbit is a prediction: some centimetres away from the orbit file.
    states, seconds = [], []
    for vector in root.iterfind(".//orbit"):
        seconds.append((_ns(vector.findtext("time")) - epoch) * 1e-9)
        states.append(
            [float(vector.findtext(f"{k}/{a}")) for k in ("position", "velocity") for a in "xyz"]
        )
    near = np.abs(seconds) < 40.0
    predicted = fit_orbit(np.array(seconds)[near], np.array(states)[near])
    other, _ = zero_doppler(predicted, ground, times)
    assert 0.0 < np.abs(other - times).max() * 7000.0 < 0.5


def test_orbit_file_looks_like_a_precise_orbit(tiny: SimulatedStack) -> None:
    path = tiny.orbits[0]
    root = etree.parse(path).getroot()
    assert root.findtext(".//File_Name") == path.stem
    assert root.findtext(".//Mission") == "Sentinel-1A"
    vectors = root.findall(".//OSV")
    assert len(vectors) == int(root.find(".//List_of_OSVs").get("count")) == 123
    times = [_ns(v.findtext("UTC")) for v in vectors]
    assert set(np.diff(times)) == {10_000_000_000}
    tai = int(np.datetime64(vectors[0].findtext("TAI")[4:], "ns").astype(np.int64))
    assert tai - times[0] == 37_000_000_000
    assert root.findtext(".//Validity_Start") == vectors[0].findtext("UTC")[:23]


def test_elevation_file(tiny: SimulatedStack) -> None:
    with tifffile.TiffFile(tiny.elevation) as file:
        page = file.pages[0]
        heights, keys = page.asarray(), page.geotiff_tags
    assert heights.dtype == np.float32
    assert keys["GeographicTypeGeoKey"] == 4979
    assert int(keys["GTRasterTypeGeoKey"]) == 2
    assert heights.min() == pytest.approx(400.0)
    assert heights.max() == pytest.approx(700.0)
    truth = xr.open_zarr(tiny.truth, consolidated=False)
    west, north = keys["ModelTiepoint"][3:5]
    row = (north - truth.latitude_deg.values) * 3600.0
    column = (truth.longitude_deg.values - west) * 3600.0
    i, j = row.astype(int), column.astype(int)
    y, x = row - i, column - j
    terrain = (1 - y) * ((1 - x) * heights[i, j] + x * heights[i, j + 1]) + y * (
        (1 - x) * heights[i + 1, j] + x * heights[i + 1, j + 1]
    )
    np.testing.assert_allclose(terrain + truth.dem_error_m, truth.height_m, atol=1e-3)


def test_old_products_have_the_old_syntax(tmp_path: Path) -> None:
    options = replace(PRESETS["tiny"], date_count=1, ipf_version="002.36", archive=True)
    stack = simulate_stack(tmp_path, options)
    assert stack.products[0].suffix == ".zip"
    with zipfile.ZipFile(stack.products[0]) as package:
        name = next(n for n in package.namelist() if "/annotation/s1a" in n)
        assert name.startswith(stack.products[0].stem + ".SAFE/")
        root = etree.fromstring(package.read(name))
    assert root.find(".//burstId") is None
    assert root.find(".//azimuthFmRatePolynomial") is None
    assert -2400.0 < float(root.findtext(".//azimuthFmRate/c0")) < -2200.0


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_bytes_do_not_depend_on_workers_or_later_dates(tmp_path: Path) -> None:
    options = replace(PRESETS["tiny"], date_count=2, samples=128)
    simulate_stack(tmp_path / "one", replace(options, workers=1))
    simulate_stack(tmp_path / "two", replace(options, workers=2))
    simulate_stack(tmp_path / "longer", replace(options, date_count=3))
    one = _digests(tmp_path / "one")
    assert one == _digests(tmp_path / "two")
    longer = _digests(tmp_path / "longer")
    early = {k: v for k, v in one.items() if not k.startswith("truth.zarr")}
    assert early == {k: v for k, v in longer.items() if k in early}
    assert len(early) == 2 * 5 + 2 + 1


def test_swaths_and_long_bursts(tmp_path: Path) -> None:
    """Three long bursts on the real beam cycle, two swaths that share a strip of ground."""
    options = replace(
        PRESETS["tiny"],
        date_count=1,
        swaths=("IW1", "IW2"),
        bursts_per_swath=3,
        lines_per_burst=1420,
        samples=160,
        relief_m=50.0,
        persistent_per_km2=20.0,
        signal_to_clutter_db=(30.0, 3.0),
    )
    stack = simulate_stack(tmp_path, options)
    numbers = [int(name.split("_")[1]) for name in stack.burst_ids]
    assert numbers[1] - numbers[0] == numbers[2] - numbers[1] == 1
    assert numbers[:3] == numbers[3:]
    near, near_start, near_time = read_amplitude(stack.products[0], "iw1")
    far, far_start, far_time = read_amplitude(stack.products[0], "iw2")
    shift = (far_time - near_time) * 64_345_238.12571428
    assert shift == pytest.approx(160 - 132, abs=1e-3)
    # Ground seen by both swaths: bright points at the same place, whatever the Doppler.
    lines = (far_start - near_start) * 1e-9 / 2.055556299999998e-3
    assert lines == pytest.approx(round(lines), abs=1e-3)
    down, right = round(lines), round(shift)
    a = near[down + 40 : 1380, right + 16 : 138]
    b = far[40 : 1380 - down, 16 : 138 - right]
    bright = (a > 1500.0) | (b > 1500.0)
    assert bright.sum() > 10
    assert np.corrcoef(a[bright], b[bright])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"bursts_per_swath": 3}, "bursts_per_swath"),
        ({"swaths": ("IW2", "IW1")}, "swaths"),
        ({"baselines_m": (0.0,)}, "baselines_m"),
        ({"coherence_long_term": 0.9}, "coherence_long_term"),
        ({"mission": "S1E"}, "mission"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, change: dict, where: str) -> None:
    with pytest.raises(ConfigurationError, match=f"C102 {where}"):
        simulate_stack(tmp_path, replace(PRESETS["tiny"], **change))
    assert not list(tmp_path.iterdir())


def test_ascending_orbit(tmp_path: Path) -> None:
    options = SimulationOptions(
        date_count=1, orbit_direction="ascending", track=117, centre_deg=(41.9, 12.5), samples=128
    )
    stack = simulate_stack(tmp_path, options)
    root = etree.parse(next(stack.products[0].glob("annotation/s1a-*.xml"))).getroot()
    assert root.findtext(".//pass") == "Ascending"
    assert -15.0 < float(root.findtext(".//platformHeading")) < -8.0
    longitudes = [float(p.text) for p in root.iterfind(".//geolocationGridPoint/longitude")]
    assert longitudes[0] < longitudes[20]  # looks to the right: east
    truth = xr.open_zarr(stack.truth, consolidated=False)
    np.testing.assert_allclose(truth.attrs["centre_deg"], (41.9, 12.5), atol=0.1)


@pytest.mark.realdata
def test_template_takes_over_the_real_passage(tmp_path: Path, real_data: Path) -> None:
    template = next((real_data / "eo_tools-morocco-2023" / "S1").glob("*20230904T*.SAFE"))
    radar = read_template(template, "VV")
    assert radar.passage is not None
    assert (radar.passage.track, radar.passage.orbit_direction) == (52, "descending")
    for name, constants in radar.swaths.items():
        assert constants.delay_s == pytest.approx(BUILT_IN.swaths[name].delay_s, abs=0.02)
    options = replace(
        PRESETS["tiny"], date_count=1, template=template, lines_per_burst=1507, samples=96
    )
    stack = simulate_stack(tmp_path, options)
    assert stack.burst_ids == ("t052_110435_iw1", "t052_110436_iw1")
    root = etree.parse(next(stack.products[0].glob("annotation/s1a-*.xml"))).getroot()
    real = etree.parse(next(template.glob("annotation/s1a-iw1-*.xml"))).getroot()
    simulated, measured = (
        [
            [float(p.findtext(k)) for k in ("latitude", "longitude")]
            for p in r.iterfind(".//geolocationGridPoint")
        ]
        for r in (root, real)
    )
    low, high = np.min(measured, axis=0), np.max(measured, axis=0)
    assert np.all((simulated > low) & (simulated < high))


@pytest.mark.realdata
def test_fm_rate_from_the_orbit_is_the_annotated_one(real_data: Path) -> None:
    template = next((real_data / "eo_tools-morocco-2023" / "S1").glob("*20230904T*.SAFE"))
    radar = read_template(template, "VV")
    assert radar.passage is not None
    root = etree.parse(next(template.glob("annotation/s1a-iw1-*.xml"))).getroot()
    node = _ns(root.findtext(".//ascendingNodeTime"))
    times, states = [], []
    for vector in root.iterfind(".//orbit"):
        times.append((_ns(vector.findtext("time")) - node) * 1e-9)
        states.append(
            [float(vector.findtext(f"{k}/{a}")) for k in ("position", "velocity") for a in "xyz"]
        )
    orbit = fit_orbit(np.array(times), np.array(states))
    for name, constants in radar.swaths.items():
        delay = constants.slant_range_time_s + np.linspace(0.0, 3.6e-4, 5)
        place = (*np.radians([31.0, -8.9]), 400.0)
        derived = geometric_fm_rate(
            orbit, radar.passage.middle_s, radar.wavelength_m, constants, place
        )
        assert constants.fm_rate is not None, name
        np.testing.assert_allclose(derived.at(delay), constants.fm_rate.at(delay), rtol=1e-3)
