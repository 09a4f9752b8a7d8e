"""Annotation, calibration and noise: faults B02 to B08, B12, B18, B19 and the real products."""

from __future__ import annotations

import importlib.util
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bperp.stores.annotation import largest_rectangle
from bperp.stores.annotation_reader import ProductContext, parse_annotation
from bperp.stores.calibration import parse_calibration, parse_noise
from bperp.stores.errors import BperpError, OrbitError, ProductError
from bperp.stores.safe import open_safe

_spec = importlib.util.spec_from_file_location(
    "safe_text", Path(__file__).with_name("test_10_safe_text.py")
)
text = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(text)


def parsed(data: bytes, context: ProductContext | None = None):
    return parse_annotation(data, "s1a-iw1.xml", context)


def changed(pattern: str, replacement: str, data: bytes | None = None, count: int = 1) -> bytes:
    source = (data or text.annotation_xml()).decode()
    result, number = re.subn(pattern, replacement, source, count=count, flags=re.DOTALL)
    assert number >= 1, pattern
    return result.encode()


def fault(data: bytes) -> BperpError:
    with pytest.raises(BperpError) as caught:
        parsed(data)
    assert "s1a-iw1.xml" in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_field_is_what_the_text_says():
    a = parsed(text.annotation_xml())
    assert (a.mission, a.mode, a.swath, a.polarization) == ("S1A", "IW", "IW1", "VV")
    assert (a.absolute_orbit, a.relative_orbit, a.orbit_direction) == (50174, 52, "ascending")
    assert a.ascending_node_time_ns == text.NODE_NS
    assert a.start_ns == a.first_line_time_ns == text.NODE_NS + 61 * 10**9
    assert (a.lines_per_burst, a.samples_per_burst) == (12, 16)
    assert (a.number_of_lines, a.number_of_samples) == (24, 16)
    assert a.azimuth_steering_rate_rad_s == pytest.approx(math.radians(1.590368784), rel=1e-12)
    assert a.radar_frequency_hz == 5.40500045433435e9
    assert a.slant_range_time_s == 5.334431164884956e-03
    assert (a.rank, a.prf_hz) == (9, 1717.128973878037)
    assert (a.range_bandwidth_hz, a.range_window_coefficient) == (56.5e6, 0.75)
    assert (a.azimuth_bandwidth_hz, a.azimuth_window_coefficient) == (327.0, 0.7)
    assert (a.range_window_type, a.azimuth_window_type) == ("Hamming", "Hamming")
    assert a.bistatic_delay_corrected is True
    assert a.fm_rate.coefficients.shape == (5, 3)
    assert a.fm_rate.coefficients[0, 0] == -2331.030585991160
    assert a.doppler_centroid is a.doppler_centroid_data
    assert a.doppler_centroid_data.coefficients[2].tolist() == [-10.0, 1.1e4, -1.8e7]
    assert a.doppler_centroid_geometry.coefficients[2].tolist() == [2.0, -470.0, 8.7e4]
    assert a.state_vectors.position_m.shape == (13, 3)
    assert np.allclose(a.state_vectors.position_m[6], text.state(60.0)[0], atol=1e-5)
    grid = a.geolocation_grid
    assert grid.line.shape == grid.height_m.shape == (3, 4)
    assert grid.line[:, 0].tolist() == [0, 12, 24]
    assert grid.pixel[0].tolist() == [0, 5, 10, 15]
    assert grid.longitude_deg[1].tolist() == [-7.0, -8.0, -9.0, -10.0]
    assert a.flags == ()
    with pytest.raises(ValueError, match="read-only"):
        a.fm_rate.coefficients[0, 0] = 1.0


def test_bursts_are_what_the_text_says():
    first, second = parsed(text.annotation_xml()).bursts
    assert first.burst_id == f"t052_{text.expected_number(62.1):06d}_iw1"
    assert second.annotated_number == first.annotated_number + 1
    assert (first.burst_id_source, second.index, second.first_line) == ("annotation", 1, 12)
    assert second.azimuth_time_ns - first.azimuth_time_ns == round(text.CYCLE_S * 1e9)
    assert first.sensing_time_ns - first.azimuth_time_ns == 1_100_000_000
    assert first.azimuth_anx_time_s == 61.0
    assert first.valid_rectangle() == (2, 10, 1, 14)
    assert first.first_valid_sample.dtype == np.int32


def test_b06_numbers_are_computed_where_the_file_has_none():
    a = parsed(text.annotation_xml(with_ids=False))
    assert a.bursts[0].burst_id == f"t052_{text.expected_number(62.1):06d}_iw1"
    assert a.bursts[0].burst_id_source == "computed"
    assert "burst-id-computed" in a.flags


def test_b06_number_off_by_one_is_refused():
    number = text.expected_number(62.1)
    error = fault(changed(f">{number}<", f">{number + 1}<"))
    assert error.code == "D304"
    assert str(number) in error.expected
    assert str(number + 1) in error.found


def test_b07_node_that_is_wrong_by_seconds_is_recomputed():
    for shift in (-3.0, 4.5, 1.5):
        wrong = f"<ascendingNodeTime>{text.at(shift)}<"
        a = parsed(changed("<ascendingNodeTime>[^<]*<", wrong))
        assert "ascending-node-recomputed" in a.flags
        assert abs(a.ascending_node_time_ns - text.NODE_NS) < 10**7
        assert a.bursts[0].burst_id_source == "annotation"
    near = f"<ascendingNodeTime>{text.at(0.5)}<"
    assert parsed(changed("<ascendingNodeTime>[^<]*<", near)).flags == ()


def test_b08_track_of_the_manifest_is_used_and_mission_must_be_known():
    context = ProductContext("name", "003.61", 52, 52, text.NODE_NS + 61 * 10**9)
    a = parse_annotation(text.annotation_xml(), "s1a.xml", context)
    assert (a.product_name, a.ipf_version, a.relative_orbit) == ("name", "003.61", 52)
    assert fault(changed("<missionId>S1A", "<missionId>S1E")).code == "D305"


def test_b03_old_and_new_polynomials_agree():
    new, old = parsed(text.annotation_xml()), parsed(text.annotation_xml(old_rates=True))
    assert np.array_equal(new.fm_rate.coefficients, old.fm_rate.coefficients)
    assert np.array_equal(new.fm_rate.range_time_s, old.fm_rate.range_time_s)


def test_polynomials_are_sorted_by_time():
    data = text.annotation_xml().decode()
    items = re.findall("<azimuthFmRate>.*?</azimuthFmRate>", data)
    swapped = data.replace("".join(items), "".join(items[::-1]))
    assert (np.diff(parsed(swapped.encode()).fm_rate.azimuth_time_ns) > 0).all()


def test_b04_polynomials_that_do_not_reach_the_last_burst():
    one = re.findall(b"<azimuthFmRate>.*?</azimuthFmRate>", text.annotation_xml())
    short = (
        text.annotation_xml()
        .replace(b"".join(one), one[0])
        .replace(b'azimuthFmRateList count="5"', b'azimuthFmRateList count="1"')
    )
    error = fault(short)
    assert error.code == "D303"
    assert "fm_rate" in error.cause


def test_b05_burst_without_byte_offset_or_time_is_refused_by_name():
    for tag in ("byteOffset", "azimuthTime", "sensingTime", "azimuthAnxTime", "firstValidSample"):
        error = fault(changed(f"(<burst>.*?)<{tag}[^>]*>[^<]*</{tag}>", r"\1"))
        assert error.code == "D302"
        assert f"burst[1]/{tag}" in error.cause


REQUIRED = [
    "adsHeader/missionId", "adsHeader/swath", "adsHeader/startTime", "adsHeader/mode",
    "productInformation/pass", "productInformation/radarFrequency",
    "productInformation/azimuthSteeringRate", "imageInformation/ascendingNodeTime",
    "imageInformation/slantRangeTime", "imageInformation/azimuthTimeInterval",
    "downlinkInformation/prf", "downlinkValues/rank", "rangeProcessing/windowCoefficient",
    "swathTiming/linesPerBurst", "orbit/time", "orbit/position", "geolocationGridPoint/height",
    "dcEstimate/dataDcPolynomial", "azimuthFmRate/t0", "processingInformation/dcMethod",
]  # fmt: skip


@pytest.mark.parametrize("path", REQUIRED)
def test_b02_required_elements_have_no_default(path):
    parent, tag = path.split("/")
    pattern = rf"(<{parent}\b.*?)<{tag}\b[^>]*>.*?</{tag}>"
    for replacement in (r"\1", rf"\1<{tag}></{tag}>", rf"\1<{tag}>NULL</{tag}>"):
        error = fault(changed(pattern, replacement))
        assert error.code == "D302"
        assert tag in error.cause


@pytest.mark.parametrize(
    ("pattern", "replacement", "code"),
    [
        ("<prf>1.717", "<prf>1,717", "D301"),
        ("<slantRangeTime>5.33", "<slantRangeTime>53.3", "D312"),
        ("<prf>1.717128973878037e[+]03", "<prf>1.7e+04", "D312"),
        ("<azimuthSteeringRate>1.59", "<azimuthSteeringRate>159.0", "D312"),
        ("<radarFrequency>5.4", "<radarFrequency>9.6", "D312"),
        ("<windowCoefficient>7.5", "<windowCoefficient>75.0", "D312"),
        ("<processingBandwidth>5.65e[+]07", "<processingBandwidth>5.65e+08", "D312"),
        ("<numberOfLines>24", "<numberOfLines>25", "D312"),
        ("<samplesPerBurst>16", "<samplesPerBurst>17", "D312"),
        ("<stopTime>2023", "<stopTime>2022", "D312"),
        ("<pass>Ascending", "<pass>Sideways", "D301"),
        ('Polynomial count="3">-1.0e[+]01', 'Polynomial count="3">-1.0e+01 7', "D301"),
        ("<line>12</line><pixel>0<", "<line>13</line><pixel>0<", "D301"),
        ("<azimuthTime>2023", "<azimuthTime>x023", "D301"),
    ],
)
def test_b18_b19_implausible_and_malformed_values(pattern, replacement, code):
    assert fault(changed(pattern, replacement)).code == code


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("<frame>Earth Fixed", "<frame>GM2000"),
        (r"<position><x>(-?\d)\.(\d+)e\+06", r"<position><x>\1.\2e+03"),
        (r"<velocity><x>[^<]*<", "<velocity><x>9.0e+03<"),
    ],
)
def test_d10_vectors_in_other_frames_or_units(pattern, replacement):
    with pytest.raises(OrbitError, match=r"O505 .*Earth Fixed"):
        parsed(changed(pattern, replacement, count=0))


@pytest.mark.parametrize(
    ("first", "last", "cause"),
    [
        ("-1 " * 12, "-1 " * 12, "a valid line"),
        ("9 " * 12, "8 " * 12, "first beyond last"),
        ("1 " * 11, "8 " * 12, "11 and 12 values"),
        ("1 " * 12, "16 " * 12, "at most sample 15"),
        ("-1 " * 2 + "1 " * 10, "8 " * 12, "both -1"),
    ],
)
def test_b12_valid_samples_that_are_none_cost_one_burst(first, last, cause):
    data = changed(r"(<firstValidSample[^>]*>)[^<]*", rf"\g<1>{first}")
    data = changed(r"(<lastValidSample[^>]*>)[^<]*", rf"\g<1>{last}", data)
    bad, good = parsed(data).bursts
    with pytest.raises(ProductError, match=f"D307 s1a-iw1.xml: valid samples of burst 0.*{cause}"):
        bad.valid_rectangle()
    assert good.valid_rectangle() == (2, 10, 1, 14)


def brute_force(first: list[int], last: list[int]) -> int:
    best = 0
    for top in range(len(first)):
        for bottom in range(top + 1, len(first) + 1):
            if min(first[top:bottom]) >= 0:
                width = min(last[top:bottom]) - max(first[top:bottom]) + 1
                best = max(best, (bottom - top) * max(width, 0))
    return best


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 9)), min_size=1, max_size=14))
def test_largest_rectangle_is_largest_and_valid(limits):
    first = [a for a, _ in limits]
    last = [-1 if a < 0 else max(a, b) for a, b in limits]
    top, bottom, left, right = largest_rectangle(
        np.array(first, dtype=np.int32), np.array(last, dtype=np.int32)
    )
    assert (bottom - top) * (right - left) == brute_force(first, last)
    for line in range(top, bottom):
        assert 0 <= first[line] <= left < right <= last[line] + 1


def test_stripmap_and_wide_swath_parse_too():
    strip = parsed(text.annotation_xml("S3", mode="SM", bursts=0))
    assert not strip.has_bursts
    assert len(strip.bursts) == 1
    burst = strip.bursts[0]
    assert (burst.lines, burst.samples, burst.burst_id_source) == (24, 16, "none")
    assert burst.valid_rectangle() == (0, 24, 0, 16)
    assert burst.azimuth_anx_time_s == pytest.approx(61.0)
    wide = parsed(text.annotation_xml("EW2", mode="EW"))
    assert wide.has_bursts
    assert wide.bursts[0].computed_number is None
    assert wide.bursts[0].burst_id.startswith("t052_")


def test_calibration_and_noise():
    table = parse_calibration(text.calibration_xml(), "cal.xml")
    assert (table.swath, table.polarization, table.absolute_constant) == ("IW1", "VV", 1.0)
    assert [vector.line for vector in table.vectors] == [-5, 0, 12]
    assert table.vectors[0].sigma_nought.tolist() == [331.0, 330.5, 330.0]
    for old in (False, True):
        noise = parse_noise(text.noise_xml(old=old), "noise.xml")
        assert noise.range_vectors[0].noise.tolist() == [578.6, 500.1]
        assert len(noise.azimuth_vectors) == (0 if old else 1)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'count="3">0 8 15', b'count="3">0 15 8', "D301"),
        (b'count="3">331.0 330.5 330.0', b'count="2">331.0 330.5', "D301"),
        (b"237.0 237.0 237.0", b"237.0 0.0 237.0", "D312"),
        (b"calibrationVectorList", b"vectorList", "D302"),
    ],
)
def test_calibration_faults(old, new, code):
    with pytest.raises(ProductError, match=f"{code} cal.xml"):
        parse_calibration(text.calibration_xml().replace(old, new), "cal.xml")


def mutate(data: bytes, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    out = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(len(out)))
        choice = random.random()
        if choice < 0.4:
            out[place] = int(random.integers(256))
        elif choice < 0.7:
            del out[place : place + int(random.integers(1, 200))]
        else:
            tags = re.findall(rb">([^<>]+)<", bytes(out))
            old = tags[int(random.integers(len(tags)))]
            new = [b"", b"NULL", b"-1", b"1e30", b"nan", b"9" * 30, b"2023-01-01T00:00:00"]
            out = bytearray(bytes(out).replace(old, new[int(random.integers(len(new)))], 1))
    return bytes(out)


@settings(max_examples=250, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_annotation_gives_a_result_or_a_typed_error(seed):
    code = "D300"
    try:
        annotation = parsed(mutate(text.annotation_xml(), seed))
        for burst in annotation.bursts:
            burst.valid_rectangle()
    except BperpError as error:
        code = error.code
    assert code[:2] in {"D3", "O5", "X9"}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_tables_give_a_result_or_a_typed_error(seed):
    code = "D300"
    try:
        parse_calibration(mutate(text.calibration_xml(), seed), "cal.xml")
        parse_noise(mutate(text.noise_xml(), seed), "noise.xml")
    except BperpError as error:
        code = error.code
    assert code[:2] in {"D3", "X9"}


def real_products(real_data: Path) -> list[Path]:
    return sorted(
        [
            *real_data.glob("s1-reader-safe-orbits/safe/*.zip"),
            *real_data.glob("eo_tools-morocco-2023/S1/*.SAFE"),
            *real_data.glob("single-safes/*/*.SAFE"),
        ]
    )


@pytest.mark.realdata
def test_real_annotation_of_all_generations(real_data):
    seconds, count, old = 0.0, 0, 0
    for path in real_products(real_data):
        product = open_safe(str(path))
        for swath, polarization in product.swaths():
            begin = time.process_time()
            a = product.annotation(swath, polarization)
            seconds, count = seconds + time.process_time() - begin, count + 1
            old += product.ipf_version < "002.43"
            assert 7 <= len(a.bursts) <= 10
            assert a.geolocation_grid.line.shape == (len(a.bursts) + 1, 21)
            assert a.fm_rate.coefficients.shape[1] == a.doppler_centroid.coefficients.shape[1] == 3
            # Values that follow from the mission, not from the file.
            assert 1400 < a.lines_per_burst < 1700
            assert abs(a.azimuth_time_interval_s - 2.0555563e-3) < 1e-9
            assert 300.0 < a.azimuth_bandwidth_hz < 350.0
            assert -2600.0 < a.fm_rate.coefficients[0, 0] < -1900.0
            rate_deg_s = math.degrees(a.azimuth_steering_rate_rad_s)
            assert abs(rate_deg_s - {"IW1": 1.590, "IW2": 0.980, "IW3": 1.397}[swath]) < 2e-3
            spacings = np.diff([burst.azimuth_time_ns for burst in a.bursts]) * 1e-9
            assert np.abs(spacings - 2.758273).max() < 0.1
            for burst in a.bursts:
                # Zero-Doppler time and time since the node differ by the rounding of the file.
                anx_s = (burst.azimuth_time_ns - a.ascending_node_time_ns) * 1e-9
                assert abs(anx_s - burst.azimuth_anx_time_s) < 2e-6
                top, bottom, left, right = burst.valid_rectangle()
                assert 1440 < bottom - top < 1500
                assert (right - left) / burst.samples > 0.85
    assert count == 35
    assert old == 3
    print(f"\nannotation: {1e3 * seconds / count:.0f} ms each")
    assert seconds / count < 0.3


@pytest.mark.realdata
def test_real_calibration_and_noise(real_data):
    tables = noises = 0
    for path in real_products(real_data):
        product = open_safe(str(path))
        for swath, polarization in product.swaths():
            table = product.calibration(swath, polarization)
            missing = f"calibration-missing:{swath}-{polarization}" in product.flags
            assert missing == (table is None)
            if table is not None:
                tables += 1
                assert (table.swath, table.polarization) == (swath, polarization)
                assert len(table.vectors) > 20
                # beta0 is flat in range by construction of the processor.
                assert np.ptp(table.vectors[0].beta_nought) == 0.0
            noise = product.noise(swath, polarization)
            if noise is not None:
                noises += 1
                is_new = product.ipf_version >= "002.90"
                assert (len(noise.azimuth_vectors) > 0) == is_new
    assert (tables, noises) == (34, 33)
