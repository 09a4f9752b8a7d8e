"""From ``simulate`` over ``init`` to ``check``: the same commands a user types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from bperp.flows.check_elevation import open_elevation, uncovered_points
from bperp.flows.cli import app
from bperp.flows.config import load_config
from bperp.flows.stack_index import index_stack
from bperp.stores.geotiff_writer import write_elevation

pytestmark = pytest.mark.slow


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(item) for item in arguments])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated stack and the configuration that ``init`` writes for it."""
    folder = tmp_path_factory.mktemp("simulated")
    made = invoke("simulate", folder / "in put", "--preset", "tiny", "--seed", "3", "--json")
    assert made.exit_code == 0, made.stderr
    document = json.loads(made.stdout)
    assert len(document["products"]) == 6
    assert json.loads(made.stderr.splitlines()[-1])["event"] == "stage_finished"
    source = folder / "in put"
    result = invoke(
        "init", "--slc", source / "safe/*.SAFE", "--orbits", source / "orbits",
        "--dem", source / "dem.tif", "--root", folder / "root", "-o", folder / "stack.yaml",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder / "stack.yaml"


def changed(stack: Path, name: str, **options: Any) -> Path:
    values = yaml.safe_load(stack.read_text())
    for option, value in options.items():
        section, _, leaf = option.partition("__")
        if leaf:
            values[section][leaf] = value
        else:
            values[section] = value
    path = stack.with_name(name)
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_simulated_stack_passes_the_check(stack: Path) -> None:
    result = invoke("check", stack, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0, document["findings"]
    assert document["summary"]["dates"] == 6
    assert document["summary"]["bursts"] == 2
    assert [row["bursts"] for row in document["dates"]] == [2] * 6
    assert sum(row["is_reference"] for row in document["dates"]) == 1
    assert all(row["orbit"] == "AUX_POEORB" for row in document["dates"])
    text = invoke("check", stack)
    assert "(reference)" in text.stdout
    assert "0 errors, 1 warnings" in text.stdout


@pytest.mark.parametrize(
    ("options", "code", "exit_code"),
    [
        ({"polarization": "VH"}, "S404", 3),
        ({"dates__last": "2023-01-06"}, "S407", 3),
        ({"aoi": [100, 10, 101, 11]}, "S412", 3),
        ({"reference_date": "2023-01-06"}, "S405", 3),
        ({"orbits__folders": ["."], "orbits__policy": "precise"}, "O501", 3),
        ({"dem__vertical_datum": "egm96"}, "E604", 3),
    ],
)
def test_faults_are_found_before_pixels_are_read(
    stack: Path, options: dict[str, Any], code: str, exit_code: int
) -> None:
    result = invoke("check", changed(stack, "changed.yaml", **options), "--json")
    document = json.loads(result.stdout)
    codes = [item["code"] for item in document["findings"] if item["level"] == "error"]
    assert code in codes
    assert result.exit_code == exit_code


def test_elevation_that_ends_within_a_burst(stack: Path) -> None:
    config = load_config(stack)
    model = open_elevation(config)
    image = index_stack(config).stack.images
    burst = next(iter(image.values()))
    assert uncovered_points(model, burst) is None
    # Keep the southern half of the grid: about half of the two bursts' points lose their height.
    heights, (lat0, lon0, dlat, dlon) = model.window(*simulated_area(stack))
    half = heights.shape[0] // 2
    path = stack.with_name("half.tif")
    write_elevation(path, heights[half:], (lat0 + half * dlat, lon0), (-dlat, dlon))
    result = invoke("check", changed(stack, "half.yaml", dem__path=str(path)), "--json")
    errors = [item for item in json.loads(result.stdout)["findings"] if item["level"] == "error"]
    assert [item["code"] for item in errors] == ["E605"]
    assert "153 points of burst" in errors[0]["message"]


def simulated_area(stack: Path) -> tuple[float, float, float, float]:
    from bperp.pipeline.geometry import burst_bounds

    images = index_stack(load_config(stack)).stack.images.values()
    bounds = np.array([burst_bounds(image, (0.0, 1000.0)) for image in images])
    south, west = bounds[:, :2].min(axis=0)
    north, east = bounds[:, 2:].max(axis=0)
    return float(south), float(west), float(north), float(east)


def test_simulate_does_not_mix_stacks(stack: Path) -> None:
    result = invoke("simulate", stack.parent / "in put")
    assert result.exit_code == 2
    assert "C111" in result.stderr


def test_unknown_preset_is_named(tmp_path: Path) -> None:
    result = invoke("simulate", tmp_path / "x", "--preset", "tinny")
    assert result.exit_code == 2
    assert "did you mean 'tiny'" in result.stderr
    assert not (tmp_path / "x").exists()
