"""Small SAFE products as text, written by hand for the tests of the readers, and their own check.

The orbit is circular, so that node, burst number and positions follow in closed form. Other test
files load this one by path.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path

import numpy as np
from lxml import etree

NODE_NS = int(np.datetime64("2023-09-04T05:56:46.900000000").astype(np.int64))
SCENE_S = 61.0
RADIUS_M, INCLINATION_RAD = 7_070_000.0, math.radians(98.18)
# Of relative orbit 52, as the real mission has it.
NODE_LONGITUDE_DEG = (0.1455 - 51 * 360.0 * 12 / 175 + 180.0) % 360.0 - 180.0
EARTH_RATE_RAD_S = 7.292115e-5
NODE_RATE_RAD_S = math.sqrt(3.986004418e14 / RADIUS_M**3)
LINES, SAMPLES, BURSTS = 12, 16, 2
CYCLE_S, ORBIT_S = 2.758273, 12 * 86400 / 175
NAME = "S1A_IW_SLC__1SDV_20230904T055747_20230904T055751_050174_0609E3_DAA1"
STEM = "s1a-{swath}-slc-{pol}-20230904t055747-20230904t055751-050174-0609e3-{number:03d}"


def iso(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns"))[:26]


def at(seconds: float) -> str:
    """Return the time so many seconds after the ascending node."""
    return iso(NODE_NS + round(seconds * 1e9))


def state(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Earth-fixed position and velocity on the circular orbit."""
    along = NODE_RATE_RAD_S * seconds
    turn = EARTH_RATE_RAD_S * seconds - math.radians(NODE_LONGITUDE_DEG)
    c, s = math.cos(INCLINATION_RAD), math.sin(INCLINATION_RAD)
    inertial = RADIUS_M * np.array([math.cos(along), math.sin(along) * c, math.sin(along) * s])
    rate = RADIUS_M * NODE_RATE_RAD_S
    moving = rate * np.array([-math.sin(along), math.cos(along) * c, math.cos(along) * s])
    spin = np.array(
        [[math.cos(turn), math.sin(turn), 0], [-math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
    )
    position = spin @ inertial
    drift = EARTH_RATE_RAD_S * np.array([-position[1], position[0], 0.0])
    return position, spin @ moving - drift


def expected_number(sensing_s: float) -> int:
    """Return the burst number of an IW1 burst of relative orbit 52, from the published formula."""
    middle = sensing_s + 0.832 + 1.078 / 2
    return 1 + math.floor((middle + 51 * ORBIT_S - 2.299849) / CYCLE_S)


def vector_xml(seconds: float) -> str:
    position, velocity = state(seconds)
    uvw = "".join(f"<{a}>{v:.9e}</{a}>" for a, v in zip("xyz", velocity, strict=True))
    xyz = "".join(f"<{a}>{v:.12e}</{a}>" for a, v in zip("xyz", position, strict=True))
    return (
        f"<orbit><time>{at(seconds)}</time><frame>Earth Fixed</frame>"
        f"<position>{xyz}</position><velocity>{uvw}</velocity></orbit>"
    )


def burst_xml(index: int, burst_id: int | None) -> str:
    start = SCENE_S + index * CYCLE_S
    first = [-1] * 2 + [1] * (LINES - 4) + [-1] * 2
    last = [-1] * 2 + [SAMPLES - 3] * (LINES - 4) + [-1] * 2
    number = "" if burst_id is None else f'<burstId absolute="98765">{burst_id}</burstId>'
    return (
        f"<burst><azimuthTime>{at(start)}</azimuthTime>"
        f"<azimuthAnxTime>{start:.9e}</azimuthAnxTime><sensingTime>{at(start + 1.1)}</sensingTime>"
        f"<byteOffset>{8 + index * LINES * SAMPLES * 4}</byteOffset>"
        f'<firstValidSample count="{LINES}">{" ".join(map(str, first))}</firstValidSample>'
        f'<lastValidSample count="{LINES}">{" ".join(map(str, last))}</lastValidSample>'
        f"{number}</burst>"
    )


def rate_xml(seconds: float, old: bool) -> str:
    values = ("-2.331030585991160e+03", "4.497516587414036e+05", "-7.816347414722723e+07")
    if old:
        body = "".join(f"<c{k}>{v}</c{k}>" for k, v in enumerate(values))
    else:
        body = f'<azimuthFmRatePolynomial count="3">{" ".join(values)}</azimuthFmRatePolynomial>'
    place = f"<azimuthTime>{at(seconds)}</azimuthTime><t0>5.334431164884956e-03</t0>"
    return f"<azimuthFmRate>{place}{body}</azimuthFmRate>"


def doppler_xml(seconds: float) -> str:
    return (
        f"<dcEstimate><azimuthTime>{at(seconds)}</azimuthTime><t0>5.338158824457998e-03</t0>"
        '<geometryDcPolynomial count="3">2.0 -4.7e+02 8.7e+04</geometryDcPolynomial>'
        '<dataDcPolynomial count="3">-1.0e+01 1.1e+04 -1.8e+07</dataDcPolynomial></dcEstimate>'
    )


def grid_xml() -> str:
    points = [
        f"<geolocationGridPoint><azimuthTime>{at(SCENE_S + row * 3.0)}</azimuthTime>"
        f"<slantRangeTime>{5.334e-3 + column * 1e-5:.9e}</slantRangeTime><line>{row * 12}</line>"
        f"<pixel>{column * 5}</pixel><latitude>{3.0 + row}</latitude><longitude>{-7.0 - column}"
        "</longitude><height>4.2e+02</height><incidenceAngle>3.07e+01</incidenceAngle>"
        "<elevationAngle>2.74e+01</elevationAngle></geolocationGridPoint>"
        for row in range(3)
        for column in range(4)
    ]
    return "".join(points)


def annotation_xml(
    swath: str = "IW1",
    polarization: str = "VV",
    mode: str = "IW",
    old_rates: bool = False,
    with_ids: bool = True,
    bursts: int = BURSTS,
) -> bytes:
    """Return an annotation of a few small bursts; zero bursts: the whole image in one."""
    start, stop = SCENE_S, SCENE_S + (BURSTS - 1) * CYCLE_S + 0.03
    lists = [SCENE_S - 3.0 + 2.7 * k for k in range(5)]
    ids = [
        expected_number(SCENE_S + k * CYCLE_S + 1.1) if with_ids else None for k in range(bursts)
    ]
    vectors = "".join(vector_xml(float(s)) for s in range(0, 121, 10))
    burst_list = "".join(burst_xml(k, ids[k]) for k in range(bursts))
    process = (
        "<windowType>Hamming</windowType><windowCoefficient>{1}</windowCoefficient>"
        "<totalBandwidth>{0}</totalBandwidth><processingBandwidth>{0}</processingBandwidth>"
    )
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<product><adsHeader><missionId>S1A</missionId><productType>SLC</productType>
<polarisation>{polarization}</polarisation><mode>{mode}</mode><swath>{swath}</swath>
<startTime>{at(start)}</startTime><stopTime>{at(stop)}</stopTime>
<absoluteOrbitNumber>50174</absoluteOrbitNumber><missionDataTakeId>395747</missionDataTakeId>
<imageNumber>004</imageNumber></adsHeader>
<generalAnnotation><productInformation><pass>Ascending</pass>
<platformHeading>-1.27e+01</platformHeading>
<rangeSamplingRate>6.434523812571428e+07</rangeSamplingRate>
<radarFrequency>5.405000454334350e+09</radarFrequency>
<azimuthSteeringRate>{"1.590368784000000e+00" if bursts else "0.0"}</azimuthSteeringRate>
</productInformation><downlinkInformationList count="1"><downlinkInformation><swath>{swath}</swath>
<prf>1.717128973878037e+03</prf><downlinkValues><rank>9</rank>
<txPulseRampRate>1.078230321255894e+12</txPulseRampRate></downlinkValues></downlinkInformation>
</downlinkInformationList><orbitList count="13">{vectors}</orbitList>
<azimuthFmRateList count="5">{"".join(rate_xml(s, old_rates) for s in lists)}</azimuthFmRateList>
</generalAnnotation><imageAnnotation><imageInformation>
<productFirstLineUtcTime>{at(start)}</productFirstLineUtcTime>
<ascendingNodeTime>{at(0.0)}</ascendingNodeTime>
<slantRangeTime>5.334431164884956e-03</slantRangeTime>
<rangePixelSpacing>2.329562e+00</rangePixelSpacing>
<azimuthPixelSpacing>1.397992e+01</azimuthPixelSpacing>
<azimuthTimeInterval>2.055556299999998e-03</azimuthTimeInterval>
<numberOfSamples>{SAMPLES}</numberOfSamples><numberOfLines>{LINES * BURSTS}</numberOfLines>
<incidenceAngleMidSwath>3.417e+01</incidenceAngleMidSwath></imageInformation>
<processingInformation><dcMethod>Data Analysis</dcMethod><swathProcParamsList count="1">
<swathProcParams><swath>{swath}</swath>
<rangeProcessing>{process.format("5.65e+07", "7.5e-01")}</rangeProcessing>
<azimuthProcessing>{process.format("3.27e+02", "7.0e-01")}</azimuthProcessing>
</swathProcParams></swathProcParamsList>
<bistaticDelayCorrectionApplied>true</bistaticDelayCorrectionApplied></processingInformation>
</imageAnnotation><dopplerCentroid><dcEstimateList count="5">{"".join(map(doppler_xml, lists))}
</dcEstimateList></dopplerCentroid><swathTiming>
<linesPerBurst>{LINES if bursts else 0}</linesPerBurst>
<samplesPerBurst>{SAMPLES if bursts else 0}</samplesPerBurst>
<burstList count="{bursts}">{burst_list}</burstList></swathTiming><geolocationGrid>
<geolocationGridPointList count="12">{grid_xml()}</geolocationGridPointList></geolocationGrid>
</product>"""
    return text.encode()


def calibration_xml(swath: str = "IW1") -> bytes:
    vectors = "".join(
        f"<calibrationVector><azimuthTime>{at(SCENE_S)}</azimuthTime><line>{line}</line>"
        '<pixel count="3">0 8 15</pixel><sigmaNought count="3">331.0 330.5 330.0</sigmaNought>'
        '<betaNought count="3">237.0 237.0 237.0</betaNought>'
        '<gamma count="3">307.0 306.5 306.0</gamma></calibrationVector>'
        for line in (-5, 0, 12)
    )
    return (
        f"<calibration><adsHeader><polarisation>VV</polarisation><swath>{swath}</swath></adsHeader>"
        "<calibrationInformation><absoluteCalibrationConstant>1.0</absoluteCalibrationConstant>"
        f'</calibrationInformation><calibrationVectorList count="3">{vectors}'
        "</calibrationVectorList></calibration>"
    ).encode()


def noise_xml(swath: str = "IW1", old: bool = False) -> bytes:
    names = ("noiseVectorList", "noiseVector", "noiseLut")
    names = names if old else ("noiseRangeVectorList", "noiseRangeVector", "noiseRangeLut")
    vector = (
        f"<{names[1]}><azimuthTime>{at(SCENE_S)}</azimuthTime><line>0</line>"
        f'<pixel count="2">0 15</pixel><{names[2]} count="2">578.6 500.1</{names[2]}></{names[1]}>'
    )
    azimuth = (
        '<noiseAzimuthVectorList count="1"><noiseAzimuthVector><line count="2">0 23</line>'
        '<noiseAzimuthLut count="2">1.17 1.02</noiseAzimuthLut></noiseAzimuthVector>'
        "</noiseAzimuthVectorList>"
    )
    return (
        f"<noise><adsHeader><polarisation>VV</polarisation><swath>{swath}</swath></adsHeader>"
        f'<{names[0]} count="1">{vector}</{names[0]}>{"" if old else azimuth}</noise>'
    ).encode()


def manifest_xml(files: dict[str, bytes] | None = None) -> bytes:
    import hashlib

    objects = "".join(
        f'<dataObject><byteStream size="{len(data)}"><fileLocation href="./{name}"/>'
        f'<checksum checksumName="MD5">{hashlib.md5(data).hexdigest()}</checksum></byteStream>'
        "</dataObject>"
        for name, data in (files or {}).items()
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" xmlns:safe="http://www.esa.int/safe/sentinel-1.0"
 xmlns:s1="http://www.esa.int/safe/sentinel-1.0/sentinel-1"
 xmlns:s1sarl1="http://www.esa.int/safe/sentinel-1.0/sentinel-1/sar/level-1"><metadataSection>
<safe:processing name="SLC Post Processing"><safe:facility country="Italy">
<safe:software name="Sentinel-1 IPF" version="003.61"/></safe:facility></safe:processing>
<safe:platform><safe:familyName>SENTINEL-1</safe:familyName><safe:number>A</safe:number>
<safe:instrument><s1sarl1:instrumentMode><s1sarl1:mode>IW</s1sarl1:mode>
</s1sarl1:instrumentMode></safe:instrument></safe:platform>
<safe:orbitReference><safe:orbitNumber type="start">50174</safe:orbitNumber>
<safe:orbitNumber type="stop">50174</safe:orbitNumber>
<safe:relativeOrbitNumber type="start">52</safe:relativeOrbitNumber>
<safe:relativeOrbitNumber type="stop">52</safe:relativeOrbitNumber>
<safe:extension><s1:orbitProperties><s1:pass>ASCENDING</s1:pass></s1:orbitProperties>
</safe:extension></safe:orbitReference><s1sarl1:standAloneProductInformation>
<s1sarl1:missionDataTakeID>395747</s1sarl1:missionDataTakeID>
<s1sarl1:transmitterReceiverPolarisation>VV</s1sarl1:transmitterReceiverPolarisation>
<s1sarl1:transmitterReceiverPolarisation>VH</s1sarl1:transmitterReceiverPolarisation>
<s1sarl1:productType>SLC</s1sarl1:productType></s1sarl1:standAloneProductInformation>
<safe:acquisitionPeriod><safe:startTime>{at(SCENE_S)}</safe:startTime>
<safe:stopTime>{at(SCENE_S + CYCLE_S + 0.9)}</safe:stopTime></safe:acquisitionPeriod>
</metadataSection><dataObjectSection>{objects}</dataObjectSection></xfdu:XFDU>""".encode()


def pixels(seed: int = 7) -> np.ndarray:
    """Return (lines, samples, 2) int16 over the whole range of values."""
    limits = np.iinfo(np.int16)
    shape = (LINES * BURSTS, SAMPLES, 2)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape, dtype=np.int16)


def tiff_bytes(
    values: np.ndarray, order: str = "<", big: bool = False, rows: int = 1, gap: int = 0
) -> bytes:
    """Write complex int16 strips by hand: directory first, then data, ``gap`` bytes between."""
    lines, samples = values.shape[:2]
    strips = -(-lines // rows)
    entry, word = (20, 8) if big else (12, 4)
    head, tags = (16, 10) if big else (8, 10)
    directory = (8 if big else 2) + tags * entry + word
    tables = head + directory
    data_start = tables + 2 * strips * word
    sizes = [min(rows, lines - k * rows) * samples * 4 for k in range(strips)]
    offsets = [data_start + k * (rows * samples * 4 + gap) for k in range(strips)]
    fields = {256: samples, 257: lines, 258: 32, 259: 1, 262: 1, 277: 1, 278: rows, 339: 5}
    long_type, letter = (16, "Q") if big else (4, "I")
    table = {273: (offsets, tables), 279: (sizes, tables + strips * word)}
    out = bytearray()
    if big:
        out += (b"II" if order == "<" else b"MM") + struct.pack(order + "HHHQ", 43, 8, 0, 16)
        out += struct.pack(order + "Q", tags)
    else:
        out += (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
        out += struct.pack(order + "H", tags)
    for tag in sorted([*fields, *table]):
        if tag in table:
            numbers, place = table[tag]
            value = place if strips > 1 else numbers[0]
            out += struct.pack(order + "HH" + letter * 2, tag, long_type, strips, value)
        else:
            kind, code = (4, "I") if fields[tag] > 65535 else (3, "H")
            inline = struct.pack(order + code, fields[tag]).ljust(word, b"\0")
            out += struct.pack(order + "HH" + letter, tag, kind, 1) + inline
    out += b"\0" * word
    if strips > 1:
        out += struct.pack(order + letter * strips, *offsets)
        out += struct.pack(order + letter * strips, *sizes)
    out = out.ljust(data_start, b"\0")
    for k in range(strips):
        part = values[k * rows : (k + 1) * rows].astype(order + "i2").tobytes()
        out = out.ljust(offsets[k], b"\0")
        out += part
    return bytes(out)


def safe_files(**changes: bytes | None) -> dict[str, bytes]:
    """Return member -> bytes of a product with IW1 VV, IW1 VH and IW2 VV.

    Keyword arguments replace a member by the start of its kind (``annotation``, ``manifest`` ...)
    for IW1 VV; None leaves it out.
    """
    files: dict[str, bytes] = {}
    for number, (swath, pol) in enumerate((("iw1", "vh"), ("iw1", "vv"), ("iw2", "vv")), start=1):
        stem = STEM.format(swath=swath, pol=pol, number=number)
        files[f"annotation/{stem}.xml"] = annotation_xml(
            swath.upper(), pol.upper(), with_ids=swath == "iw1"
        )
        files[f"annotation/calibration/calibration-{stem}.xml"] = calibration_xml(swath.upper())
        files[f"annotation/calibration/noise-{stem}.xml"] = noise_xml(swath.upper())
        files[f"measurement/{stem}.tiff"] = tiff_bytes(pixels(number))
    stem = STEM.format(swath="iw1", pol="vv", number=2)
    places = {
        "annotation": f"annotation/{stem}.xml",
        "calibration": f"annotation/calibration/calibration-{stem}.xml",
        "noise": f"annotation/calibration/noise-{stem}.xml",
        "measurement": f"measurement/{stem}.tiff",
    }
    for kind, data in changes.items():
        if kind == "manifest":
            continue
        if data is None:
            del files[places[kind]]
        else:
            files[places[kind]] = data
    manifest = changes.get("manifest", manifest_xml(files))
    if manifest is not None:
        files["manifest.safe"] = manifest
    return files


def write_folder(folder: Path, files: dict[str, bytes], name: str = NAME) -> Path:
    root = folder / f"{name}.SAFE"
    for member, data in files.items():
        path = root / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(
    folder: Path,
    files: dict[str, bytes],
    name: str = NAME,
    prefix: str = f"{NAME}.SAFE/",
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in files.items():
            archive.writestr(prefix + member, data)
    return path


def test_state_is_a_closed_orbit_of_the_right_size():
    position, velocity = state(0.0)
    longitude = math.degrees(math.atan2(position[1], position[0]))
    assert abs(longitude - NODE_LONGITUDE_DEG) < 1e-9
    assert position[2] == 0.0
    assert velocity[2] > 0.0
    # Earth-fixed velocity is the derivative of the Earth-fixed position.
    step = 1e-3
    difference = (state(60.0 + step)[0] - state(60.0 - step)[0]) / (2 * step)
    assert np.allclose(difference, state(60.0)[1], atol=1e-3)


def test_texts_are_well_formed():
    for text in (
        annotation_xml(),
        calibration_xml(),
        noise_xml(),
        noise_xml(old=True),
        manifest_xml(),
    ):
        assert len(text) < 50_000
        etree.fromstring(text)
