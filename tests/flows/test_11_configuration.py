"""Options: defaults, round trip, one clear error for each kind of fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bperp.flows.config import (
    STEPS,
    StackConfig,
    Step,
    commented_yaml,
    differences,
    load_config,
    write_config,
)
from bperp.flows.config_errors import option_names
from bperp.flows.config_types import parse_angle, parse_memory
from bperp.flows.yaml_writer import section_model
from bperp.stores.errors import BperpError, ConfigurationError, SecurityError, StackError

MINIMAL: dict[str, Any] = {"root": "out", "slc": ["*.zip"], "dem": {"path": "dem.tif"}}
BASE = "root: out\nslc: ['*.zip']\ndem: {path: dem.tif}\n"
SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def config(**options: Any) -> StackConfig:
    return StackConfig.from_values({**MINIMAL, **options})


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        section = section_model(info)
        if section is None:
            yield prefix + name, info
        else:
            yield from leaves(section, f"{prefix}{name}.")


LEAVES = dict(leaves(StackConfig))


def load(tmp_path: Path, text: str) -> StackConfig:
    path = tmp_path / "stack.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def fault(tmp_path: Path, line: str) -> BperpError:
    with pytest.raises(BperpError) as caught:
        load(tmp_path, BASE + line + "\n")
    return caught.value


# --- what every option must declare ---------------------------------------------------------


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_states_meaning_and_allowed_values(name: str) -> None:
    info = LEAVES[name]
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    assert len(info.description or "") > 5
    assert extra["allowed"]
    is_number = info.annotation in (int, float)
    if is_number and name != "scatterers.iterations":
        assert extra["unit"], f"{name} is a number without a unit"


@pytest.mark.parametrize("name", LEAVES)
def test_stated_choices_are_the_checked_ones(name: str) -> None:
    info = LEAVES[name]
    allowed = str((info.json_schema_extra or {})["allowed"])  # type: ignore[index]
    if get_origin(info.annotation) is Literal:
        choices = {str(choice) for choice in get_args(info.annotation)}
        assert set(re.findall(r"\w+", allowed)) - {"or"} == choices
    limits = [
        getattr(item, side)
        for item in info.metadata
        for side in ("ge", "gt", "le", "lt")
        if hasattr(item, side)
    ]
    for limit in limits:
        assert f"{limit:g}" in allowed


def test_steps_are_in_the_order_of_the_chain() -> None:
    assert STEPS[0] == "ingest"
    assert STEPS[-1] == "export"
    assert get_args(Step) == STEPS


# --- round trips -----------------------------------------------------------------------------


def test_commented_file_lists_every_option_and_reads_as_the_defaults(tmp_path: Path) -> None:
    text = commented_yaml(MINIMAL)
    for name, info in LEAVES.items():
        leaf = name.rsplit(".", 1)[-1]
        assert re.search(rf"^ *{leaf}:", text, re.MULTILINE), name
        first_words = " ".join((info.description or "").split()[:3])
        assert first_words in text, name
    assert max(map(len, text.splitlines())) <= 100
    written = load(tmp_path, text)
    assert written == StackConfig.from_values(MINIMAL, folder=tmp_path)


def test_required_options_are_marked_and_refused_until_given(tmp_path: Path) -> None:
    text = commented_yaml({})
    assert text.count("REQUIRED") == 3
    with pytest.raises(ConfigurationError, match=r"root.*2 more: slc, dem\.path"):
        load(tmp_path, text)


looks = st.tuples(st.integers(1, 200), st.integers(1, 200))
# A dollar starts a variable and a tilde the home folder: both are for people, not for round trips.
names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="$~/\\:"),
    min_size=1,
    max_size=20,
).filter(lambda text: text.strip(" .\xa0") != "" and text.strip() == text)
options = st.fixed_dictionaries(
    {
        "slc": st.lists(names, min_size=1, max_size=6),
        "polarization": st.sampled_from(["VV", "VH"]),
        "swaths": st.just("auto") | st.lists(st.sampled_from(["IW1", "IW2", "IW3"]), max_size=3),
        "aoi": st.none() | st.just([10.5, 40, 11.25, 41.0]) | st.just([179.5, -10.0, -179.5, -9.0]),
        "reference_date": st.just("auto") | st.dates().map(lambda day: day.isoformat()),
        "interferogram": st.fixed_dictionaries({"looks": looks.map(list)}),
        "coregister": st.fixed_dictionaries({"range_taps": st.sampled_from(["auto", 8, 16])}),
        "amplitude": st.fixed_dictionaries(
            {"max_amplitude_dispersion": st.floats(1e-9, 1.0, exclude_min=True)}
        ),
        "timeseries": st.fixed_dictionaries(
            {
                "reference": st.just("auto")
                | st.fixed_dictionaries({"lon": st.floats(-180, 180), "lat": st.floats(-90, 90)})
            }
        ),
    }
)


@SETTINGS
@given(options)
def test_written_files_read_back_equal(tmp_path: Path, values: dict[str, Any]) -> None:
    before = StackConfig.from_values({**MINIMAL, **values}, folder=tmp_path)
    path = tmp_path / "round.yaml"
    write_config(before, path, overwrite=True)
    after = load_config(path)
    assert after == before
    assert after.as_values() == before.as_values()
    assert StackConfig.from_values(before.as_values()) == before


@SETTINGS
@given(st.data())
def test_a_damaged_file_gives_a_typed_error_or_a_configuration(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(commented_yaml(MINIMAL).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["delete", "flip", "insert"]))
        if kind == "delete":
            del content[position : position + data.draw(st.integers(1, 30))]
        elif kind == "flip":
            content[position] ^= 1 << data.draw(st.integers(0, 7))
        else:
            content[position:position] = data.draw(
                st.sampled_from([b"\t", b"[", b"&a ", b"'", b":"])
            )
    path = tmp_path / "damaged.yaml"
    path.write_bytes(bytes(content))
    try:
        result: object = load_config(path)
    except BperpError as error:
        result = error
    # Anything else, such as a ValueError of the parser, has ended the test already.
    assert isinstance(result, StackConfig | ConfigurationError | StackError | SecurityError)
    if isinstance(result, BperpError):
        assert "\n" not in str(result)


def test_write_refuses_to_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "stack.yaml"
    write_config(MINIMAL, path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        write_config(config(), path)
    assert caught.value.code == "C111"
    assert path.read_bytes() == before
    with pytest.raises(ConfigurationError) as caught:
        write_config(MINIMAL, tmp_path / "absent" / "stack.yaml")
    assert caught.value.code == "C104"


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        # C101: unknown options
        ("refrence_date: auto", "C101", "did you mean 'reference_date'"),
        ("interferogram: {lokks: [1, 1]}", "C101", "did you mean 'looks'"),
        ("looks: [1, 1]", "C101", "did you mean 'interferogram.looks'"),
        ("quux: 1", "C101", "one of name, root"),
        # C102: type, unit, range
        ("amplitude: {max_amplitude_dispersion: 40}", "C102", "at most 1"),
        ("interferogram: {looks: [0, 20]}", "C102", r"interferogram\.looks\[0\].*1 to 200"),
        ("interferogram: {looks: [4]}", "C102", "too short"),
        ("interferogram: {looks: [4, 20, 1]}", "C102", "at most 2"),
        ("interferogram: {looks: [4.0, 20]}", "C102", "integer"),
        ("interferogram: {looks: '4 20'}", "C102", "two integers"),
        ("scatterers: {max_topo_error_m: 20 km}", "C102", r"1 to 200 \(m\)"),
        ("scatterers: {max_topo_error_m: .nan}", "C102", "finite"),
        ("misregistration: {esd: yes}", "C102", "write true or false"),
        ("misregistration: {esd: 1}", "C102", "true or false"),
        ("swaths: [IW4]", "C102", "IW1"),
        ("swaths: all", "C102", "auto"),
        ("compute: {workers: 0}", "C102", "1 to 1024"),
        ("compute: {workers: many}", "C102", "auto or 1 to 1024"),
        ("compute: {memory_per_worker: 10 apples}", "C102", "MB, GB"),
        ("compute: {memory_per_worker: 1MB}", "C102", "256MB"),
        ("reference_date: 2020-02-30", "C102", "no such day"),
        ("reference_date: 020200101", "C102", "not a date"),
        ("dates: {first: 2021-01-01, last: 2020-01-01}", "C102", "later"),
        ("dates: {include: [20200101], exclude: [2020-01-01]}", "C102", "both included"),
        ("dates: {exclude: [2020-01-01]}\nreference_date: 20200101", "C102", "another reference"),
        ("dates: {include: [2020-01-01]}\nreference_date: 20200113", "C102", "dates.include"),
        # C103: coordinates
        ("aoi: [40, 100, 41, 101]", "C103", r"did you mean \[100, 40, 101, 41\]"),
        ("aoi: [10, 41, 11, 40]", "C103", r"did you mean \[10, 40, 11, 41\]"),
        ("aoi: [11, 40, 10, 41]", "C103", r"did you mean \[10, 40, 11, 41\]"),
        ("aoi: [190, 40, 191, 41]", "C103", "-180 to 180"),
        ("aoi: [\"12°30'E\", 40, 13, 41]", "C103", r"did you mean 12\.5"),
        ("aoi: [12:30, 40, 13, 41]", "C103", r"did you mean 12\.5"),
        ("timeseries: {reference: {lon: 12, lat: 95}}", "C103", "-90 to 90"),
        # C104: paths
        ("orbits: {folders: ['D:\\orbits']}", "C104", "Windows"),
        ("orbits: {folders: [D:/orbits]}", "C104", "Windows"),
        ("orbits: {folders: ['']}", "C104", "empty"),
        ("orbits: {folders: [$BPERP_SURELY_UNSET/x]}", "C104", "BPERP_SURELY_UNSET"),
        ("orbits: {folders: ['ftp://host/x']}", "C104", "not supported"),
        ("orbits: {folders: ['s3://']}", "C104", "no bucket"),
        ("orbits: {folders: [\"a\\0b\"]}", "C104", "control character"),
        # others
        ("aoi: [10, 40, 10, 41]", "S412", "no extent"),
        ("name: ../../x", "X904", "letters, digits"),
        ("name: ..", "X904", "letters, digits"),
        ("export: {folder: ../../x}", "X904", "leave the project root"),
        ("export: {folder: /etc}", "X904", "leave the project root"),
        ("orbits: {folders: ['s3://user:hunter22@bucket/x']}", "X907", "password"),
        ("compute: {asf_password: hunter22}", "X907", "credentials"),
        ("AWS_SECRET_ACCESS_KEY: hunter22", "X907", "credentials"),
    ],
)  # fmt: skip
def test_each_fault_has_its_code_and_says_what_is_expected(
    tmp_path: Path, line: str, code: str, words: str
) -> None:
    error = fault(tmp_path, line)
    assert error.code == code
    assert re.search(words, str(error)), str(error)
    assert error.remedy
    assert "hunter22" not in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("root", "volume", "code"),
    [("https://host/x", None, "C104"), ("/data/run", None, "C102"), ("/home/run", "insar", "C102"),
     ("/data/run", "insar", None), ("s3://bucket/run", None, None)],
)  # fmt: skip
def test_the_root_must_be_writable_from_where_tasks_run(
    root: str, volume: str | None, code: str | None
) -> None:
    files = {f"tls_{name}": f"/tls/{name}" for name in ("ca", "certificate", "key")}
    pods = {"image": "bperp:1.0", "certificates": "tls", "volume_claim": volume}
    cluster = {"kind": "kubernetes", **files, "kubernetes": pods}
    if code is None:
        assert config(root=root, compute={"workers": 2, "cluster": cluster}).root == root
        return
    with pytest.raises(BperpError, match=code):
        config(root=root, compute={"workers": 2, "cluster": cluster})


def test_the_error_names_file_line_and_option_and_counts_the_others(tmp_path: Path) -> None:
    error = fault(tmp_path, "compute: {workers: 0}\nmisregistration:\n  esd: 3\n  loks: [1, 1]")
    # Unknown names come first: they explain why the rest had no effect.
    assert error.code == "C101"
    assert error.where == f"{tmp_path / 'stack.yaml'}:7: misregistration.loks"
    assert "2 more: misregistration.esd, compute.workers" in error.cause


def test_error_types_follow_the_code(tmp_path: Path) -> None:
    assert isinstance(fault(tmp_path, "aoi: [1, 2, 1, 2]"), StackError)
    assert isinstance(fault(tmp_path, "name: a/b"), SecurityError)


# --- what is accepted ------------------------------------------------------------------------


def test_paths_refer_to_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPERP_TEST_FOLDER", "/data/with blank")
    monkeypatch.setenv("HOME", "/home/somebody")
    text = (
        "root: ../results\n"
        "slc: ['$BPERP_TEST_FOLDER/*.zip', '${BPERP_TEST_FOLDER}/[ab]*.SAFE', s3://bucket/a/*.zip]\n"
        "dem: {path: ~/dem.tif, geoid: 'my grids/egm96.gtx'}\n"
        "orbits: {folders: ['file:///orbits/']}\n"
    )
    loaded = load(tmp_path, text)
    assert loaded.root == str(tmp_path.parent / "results")
    assert loaded.slc == (
        "/data/with blank/*.zip",
        "/data/with blank/[ab]*.SAFE",
        "s3://bucket/a/*.zip",
    )
    assert loaded.dem.path == "/home/somebody/dem.tif"
    assert loaded.dem.geoid == str(tmp_path / "my grids/egm96.gtx")
    assert loaded.orbits.folders == ("/orbits/",)


def test_the_working_folder_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "stack.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    first = load_config("stack.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config("../stack.yaml") == first


@pytest.mark.parametrize("text", ["2020-01-31", "20200131", "'20200131'", '"2020-01-31"'])
def test_dates_may_be_written_in_several_ways(tmp_path: Path, text: str) -> None:
    loaded = load(tmp_path, f"{BASE}reference_date: {text}\ndates: {{include: [{text}]}}\n")
    assert loaded.reference_date == "2020-01-31"
    assert loaded.dates.include == ("2020-01-31",)


def test_date_selection() -> None:
    dates = config(
        dates={"first": "2020-01-01", "last": "2020-12-31", "exclude": ["2020-06-01"]}
    ).dates
    assert dates.selects("2020-01-01")
    assert dates.selects("2020-12-31")
    assert not dates.selects("2021-01-01")
    assert not dates.selects("2019-12-31")
    assert not dates.selects("2020-06-01")
    assert not config(dates={"include": ["2020-01-01"]}).dates.selects("2020-01-13")


def test_area_has_names_and_may_cross_the_antimeridian() -> None:
    area = config(aoi=[10, 40, 11, 41]).aoi
    assert area is not None
    assert (area.lon_min, area.lat_min, area.lon_max, area.lat_max) == (10, 40, 11, 41)
    assert not area.crosses_antimeridian
    crossing = config(aoi=[179, -10, -179, -9]).aoi
    assert crossing is not None
    assert crossing.crosses_antimeridian


def test_an_emptied_section_means_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, BASE + "compute:\nexport:\n").compute == config().compute


def test_models_are_frozen_and_strict() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().root = "elsewhere"  # type: ignore[misc]
    with pytest.raises(ConfigurationError):
        config(interferogram={"neighbours": "3"})


@pytest.mark.parametrize(
    ("text", "size"),
    [("1.5GB", 1_500_000_000), ("16G", 16_000_000_000), ("1GiB", 1 << 30), ("800 MB", 800_000_000)],
)
def test_memory_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size
    assert config(compute={"memory_per_worker": text}).compute.memory_per_worker_bytes == size


@pytest.mark.parametrize(
    ("text", "angle"),
    [
        ("12.5", 12.5),
        ("12,5", 12.5),
        ("12°30'", 12.5),
        ("12°30'36\"W", -12.51),
        ("12d30mS", -12.5),
        ("-12 30 36", -12.51),
        ("12:30", 12.5),
        ("12:75", None),
        ("north", None),
    ],
)
def test_degree_text_is_guessed(text: str, angle: float | None) -> None:
    assert parse_angle(text) == angle


# --- hashes and differences ------------------------------------------------------------------

# Which steps must be recomputed when one option changes. Written out by hand: the test fails when
# a new option is not thought of.
AFFECTED: dict[str, tuple[str, ...]] = {
    "dem": ("geometry", "geocode"),
    "geometry": ("geometry", "geocode"),
    "timing": ("geometry", "misregistration", "alignment", "geocode"),
    "misregistration": ("misregistration",),
    "alignment": ("alignment",),
    "filter": ("filter",),
    "geocode": ("geocode",),
    "coregister": ("coregister",),
    "interferogram": ("interferogram",),
    "amplitude": ("amplitude", "scatterers"),
    "scatterers": ("scatterers",),
    "timeseries": ("timeseries",),
    "publish": ("publish",),
    "export": ("export",),
}
OTHER: dict[str, Any] = {
    "name": "other",
    "root": "elsewhere",
    "slc": ["b"],
    "orbits.folders": ["o"],
    "orbits.policy": "precise",
    "dem.path": "b.tif",
    "dem.vertical_datum": "egm96",
    "dem.geoid": "g.tif",
    "polarization": "VH",
    "swaths": ["IW1"],
    "aoi": [1, 2, 3, 4],
    "aoi_subset": "pixels",
    "reference_date": "2020-01-01",
    "dates.include": ["2020-01-01"],
    "dates.exclude": ["2020-01-01"],
    "dates.first": "2020-01-01",
    "dates.last": "2020-01-01",
    "on_bad_date": "skip",
    "geometry.missing_elevation": "sea",
    "timing.bistatic": True,
    "timing.doppler_range": True,
    "timing.fm_mismatch": True,
    "timing.solid_tide": True,
    "misregistration.esd": False,
    "misregistration.looks": [1, 1],
    "misregistration.max_shift_lines": 0.04,
    "misregistration.neighbours": 3,
    "misregistration.range_correlation": False,
    "misregistration.max_range_shift_samples": 1,
    "alignment.azimuth_surface": "apply",
    "coregister.range_taps": 8,
    "interferogram.looks": [1, 1],
    "interferogram.network": "nearest",
    "interferogram.neighbours": 2,
    "interferogram.burst_phase": "remove",
    "interferogram.common_band": "auto",
    "filter.enabled": True,
    "filter.strength": 0.5,
    "filter.window": 16,
    "filter.overlap": 0.5,
    "geocode.enabled": True,
    "geocode.crs": "EPSG:4326",
    "geocode.spacing": 30,
    "geocode.bounds": [1, 2, 3, 4],
    "geocode.resampling": "nearest",
    "amplitude.max_amplitude_dispersion": 0.35,
    "scatterers.max_topo_error_m": 15,
    "scatterers.filter_grid_m": 40,
    "scatterers.low_pass_wavelength_m": 700,
    "scatterers.max_percent_random": 1,
    "scatterers.min_phase_stability": 0.5,
    "scatterers.iterations": 2,
    "scatterers.weed_neighbours": False,
    "timeseries.reference": {"lon": 1, "lat": 2},
    "timeseries.min_arc_coherence": 0.5,
    "timeseries.max_arc_length_m": 1000,
    "timeseries.max_arc_velocity_m_yr": 0.03,
    "timeseries.max_arc_dem_error_m": 30,
    "publish.enabled": True,
    "publish.crs": "EPSG:4326",
    "publish.spacing": 50,
    "publish.bounds": [1, 2, 3, 4],
    "export.formats": ["stamps"],
    "export.folder": "e",
    "compute.engine": "serial",
    "compute.workers": 1,
    "compute.memory_per_worker": "1GB",
    "compute.cluster.kind": "slurm",
    "compute.cluster.address": "tls://other:8786",
    "compute.cluster.tls_ca": "other.pem",
    "compute.cluster.tls_certificate": "other.pem",
    "compute.cluster.tls_key": "other.pem",
    "compute.cluster.patience_s": 5,
    "compute.cluster.slurm.queue": "long",
    "compute.cluster.slurm.account": "insar",
    "compute.cluster.slurm.walltime": "1:00:00",
    "compute.cluster.slurm.workers_per_job": 2,
    "compute.cluster.slurm.interface": "ib0",
    "compute.cluster.slurm.shared_directory": "shared",
    "compute.cluster.slurm.local_directory": "$SCRATCH",
    "compute.cluster.slurm.log_directory": "logs",
    "compute.cluster.slurm.job_extra": ["--exclusive"],
    "compute.cluster.kubernetes.namespace": "insar",
    "compute.cluster.kubernetes.image": "bperp:2",
    "compute.cluster.kubernetes.certificates": "tls",
    "compute.cluster.kubernetes.environment": "keys",
    "compute.cluster.kubernetes.service_account": "runner",
    "compute.cluster.kubernetes.volume_claim": "products",
    "compute.cluster.kubernetes.volume_path": "/products",
}
# Options that are refused without others.
SECURED = {
    "kind": "address",
    "address": "tls://scheduler:8786",
    "tls_ca": "ca.pem",
    "tls_certificate": "certificate.pem",
    "tls_key": "key.pem",
}
COMPANY: dict[str, dict[str, Any]] = {
    "compute.cluster.kind": {"compute": {"workers": 4}},
    **{
        f"compute.cluster.{name}": {"compute": {"cluster": SECURED}}
        for name in ("address", "tls_ca", "tls_certificate", "tls_key")
    },
}


def changed(before: StackConfig, name: str, value: Any) -> StackConfig:
    *sections, leaf = name.split(".")
    values = before.as_values()
    place = values
    for section in sections:
        place = place[section]
    place[leaf] = value
    return StackConfig.from_values(values)


def test_the_table_of_changes_is_complete() -> None:
    assert set(OTHER) == set(LEAVES)


@pytest.mark.parametrize("name", OTHER)
def test_a_changed_option_touches_only_the_steps_that_depend_on_it(name: str) -> None:
    before = config(**COMPANY.get(name, {}))
    after = changed(before, name, OTHER[name])
    touched = [
        step for step in STEPS if before.step_options_json(step) != after.step_options_json(step)
    ]
    section = name.split(".", maxsplit=1)[0]
    assert tuple(touched) == AFFECTED.get(section, ())
    found = list(differences(before, after))
    assert found == [name] or all(key.startswith(name) for key in found)


def test_step_options_are_json_of_known_steps() -> None:
    options = config().step_options("interferogram")
    assert options == {
        "looks": [4, 20],
        "network": "single_reference",
        "neighbours": 3,
        "burst_phase": "report",
        "common_band": "never",
    }
    assert config().step_options("ingest") == {}
    with pytest.raises(ValueError, match="step must be one of"):
        config().step_options("unwrap")


def test_option_names_include_sections() -> None:
    names = list(option_names(StackConfig))
    assert "interferogram" in names
    assert "interferogram.looks" in names
