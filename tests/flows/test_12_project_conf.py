"""Import of snap2stamps files: the one on the slides, users' variants, second generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from bperp.flows.config import StackConfig
from bperp.flows.project_conf import ProjectConf, read_project_conf
from bperp.stores.errors import ConfigurationError

# As shown on the slides, with numbers in the empty box; NATMIN is their misprint.
SLIDES = """\
##### CONFIGURATION FILE ####

# PROJECT DEFINITION
PROJECTFOLDER=/application/workdir/PROC_dir
GRAPHSFOLDER=/application/graphs
***********************
# PROCESSING PARAMTERS
IW1=IW2
MASTER=/application/workdir/PROC_dir/master/S1A_IW_SLC__1SDV_20150402T155633_20150402T155700_022180_02662B_7085_split_Orb.dim

# AOI BBOX DEFINITION
LONMIN=12.2
NATMIN=41.7
LONMAX=12.8
LATMAX=42.1

# SNAP GPT
GPTBIN_PATH=/application/pi/snap/bin/gpt

# COMPUTING RESOURCES TO EMPLOY
CPU=8
CACHE=16G
"""

SECOND = """\
[PROJECT_DEFINITION]
PROJECTFOLDER = ./project
GRAPHSFOLDER = ./graphs
[PROC_OPTIONS]
OVERWRITE = N
SMARTHDD = Y
PLOTTING = Y
[PROC_PARAMETERS]
SENSOR = S1
POLARISATION = vh
MASTERSEL = AUTO
MASTERFOLDER = ./project/20200112
EXTDEM = ./dem/copernicus.tif
[AOI_DEFINITION]
AOI_MODE = WKT
WKT = POLYGON ((12.2 41.7, 12.8 41.7, 12.8 42.1, 12.2 42.1, 12.2 41.7))
[SEARCH_PARAMS]
autoDownload = Y
TRACK = 117
START = 2019-01-01
END = 20201231
SAT = S1
ASF_USER = somebody
ASF_PASS = hunter22
[SEARCH_PDOWNLOADS]
NPD = 4
[COMPUTING_RESOURCES]
CPU = 4
CACHE = 10G
"""


def read(tmp_path: Path, text: str) -> ProjectConf:
    path = tmp_path / "project.conf"
    path.write_text(text, encoding="utf-8")
    return read_project_conf(path)


def test_the_file_of_the_slides(tmp_path: Path) -> None:
    result = read(tmp_path, SLIDES)
    assert result.values == {
        "root": "/application/workdir/PROC_dir/bperp",
        "slc": ["/application/workdir/PROC_dir/slaves/**/S1*.zip"],
        "swaths": ["IW2"],
        "reference_date": "2015-04-02",
        "aoi": [12.2, 41.7, 12.8, 42.1],
        "compute": {"workers": 8, "memory_per_worker": "2000MB"},
    }
    notes = "\n".join(result.notes)
    for word in ("NATMIN was read as LATMIN", "GPTBIN_PATH was ignored", "GRAPHSFOLDER", "CACHE"):
        assert word in notes
    config = StackConfig.from_values({**result.values, "dem": {"path": "dem.tif"}})
    assert config.compute.workers == 8


def test_an_empty_box_means_no_area_and_says_so(tmp_path: Path) -> None:
    text = SLIDES.replace("=12.2", "=").replace("=41.7", "=").replace("=12.8", "=")
    result = read(tmp_path, text.replace("=42.1", "="))
    assert "aoi" not in result.values
    assert any("no area of interest" in note for note in result.notes)


def test_second_generation(tmp_path: Path) -> None:
    result = read(tmp_path, SECOND)
    values = result.values
    assert values["root"] == str(tmp_path / "project/bperp")
    assert values["dem"] == {"path": str(tmp_path / "dem/copernicus.tif")}
    assert values["aoi"] == [12.2, 41.7, 12.8, 42.1]
    assert values["dates"] == {"first": "2019-01-01", "last": "2020-12-31"}
    assert values["polarization"] == "VH"
    assert values["reference_date"] == "2020-01-12"
    assert values["compute"] == {"workers": 4, "memory_per_worker": "2500MB"}
    notes = "\n".join(result.notes)
    for key in ("OVERWRITE", "SMARTHDD", "PLOTTING", "AUTODOWNLOAD", "TRACK", "SAT", "NPD",
                "MASTERSEL", "ASF_USER", "ASF_PASS", "EXTDEM"):  # fmt: skip
        assert key in notes, key
    assert "hunter22" not in notes
    assert "hunter22" not in str(values)
    StackConfig.from_values(values)


def test_products_are_found_where_the_scripts_put_them(tmp_path: Path) -> None:
    folder = tmp_path / "project" / "slaves" / "20200112"
    folder.mkdir(parents=True)
    name = "S1A_IW_SLC__1SDV_20200112T155633_20200112T155700_030000_036000_ABCD"
    (folder / f"{name}.zip").touch()
    (tmp_path / "project" / "master" / f"{name}.SAFE").mkdir(parents=True)
    result = read(tmp_path, "PROJECTFOLDER=project\n")
    assert result.values["slc"] == [
        str(tmp_path / "project/slaves/**/S1*.zip"),
        str(tmp_path / "project/master/**/S1*.SAFE"),
    ]


@pytest.mark.parametrize(
    ("line", "swaths"),
    [
        ("IW1=IW2", ["IW2"]),
        ("IW1=2", ["IW2"]),
        ("iw1 = iw1, IW3", ["IW1", "IW3"]),
        ("IW1='IW3'  # as a comment", ["IW3"]),
    ],
)
def test_forms_of_the_swath(tmp_path: Path, line: str, swaths: list[str]) -> None:
    assert read(tmp_path, line).values["swaths"] == swaths


def test_windows_paths_are_named_not_mangled(tmp_path: Path) -> None:
    result = read(tmp_path, "PROJECTFOLDER=E:\\Thesis\\1_insar\\\nEXTDEM=D:/dem.tif\n")
    assert "root" not in result.values
    assert "dem" not in result.values
    assert sum("Windows path" in note for note in result.notes) == 2


def test_variables_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("BPERP_TEST_FOLDER", "/data/with blank")
    result = read(tmp_path, "PROJECTFOLDER=~/project\nSOURCEFOLDER=$BPERP_TEST_FOLDER\n")
    assert result.values["root"] == "/home/somebody/project/bperp"
    assert result.values["slc"] == ["/data/with blank/**/S1*.zip"]


def test_looks_and_downloaded_variant(tmp_path: Path) -> None:
    result = read(tmp_path, "RGLOOK=8\nAZLOOK=2\nSMOOTH=1\nMultiproc=1\ntemp_baseline=30\n")
    assert result.values["interferogram"] == {"looks": [2, 8]}
    assert len(result.notes) == 4  # three keys and the missing area


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("LONMIN=12\nLATMIN=41\nLONMAX=13\nLATMAXX=42", "C101", "LATMAX"),
        ("PROJECTFOLDR=/x", "C101", "PROJECTFOLDER"),
        ("LONMIN=12\nLATMIN=41\nLONMAX=13", "C103", "LATMAX"),
        ("LONMIN=12°30'\nLATMIN=41\nLONMAX=13\nLATMAX=42", "C103", "LONMIN=12.5"),
        ("LONMIN=12,5\nLATMIN=41\nLONMAX=13\nLATMAX=42", "C103", "LONMIN=12.5"),
        ("IW1=IW9", "C102", "IW1=IW2"),
        ("CPU=many", "C102", "CPU=4"),
        ("CACHE=lots", "C102", "CACHE=16G"),
        ("START=soon", "C102", "2020-01-31"),
        ("SENSOR=TSX", "C102", "Sentinel-1"),
        ("POLARISATION=VV,VH", "C102", "VV, VH, HH or HV"),
        ("AOI_MODE=WKT\nWKT=POLYGON EMPTY", "C103", "POLYGON"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(
    tmp_path: Path, text: str, code: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_nothing_is_dropped_silently(tmp_path: Path) -> None:
    result = read(tmp_path, "QUUX=1\nAOI_MODE=SHP\nAOI_FILE=x.shp\nCPU=2\nCPU=4\nSAT=\n")
    notes = "\n".join(result.notes)
    for word in ("QUUX", "AOI_MODE=SHP", "AOI_FILE", "CPU is given twice", "SAT is empty"):
        assert word in notes
    assert result.values["compute"]["workers"] == 4


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_project_conf(tmp_path / "absent.conf")
    assert caught.value.code == "C104"
