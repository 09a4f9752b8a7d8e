"""The index of a real pair: bursts, scene and baseline as the chain uses them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bperp.flows.config import StackConfig
from bperp.flows.stack_index import index_stack
from bperp.pipeline.baseline import center_baseline_m

pytestmark = pytest.mark.realdata


def configuration(products: Path, root: Path, swaths: list[str]) -> StackConfig:
    return StackConfig.from_values(
        {
            "root": str(root / "root"),
            "slc": [str(products / "*.SAFE")],
            "orbits": {"folders": [], "policy": "allow_predicted"},
            "dem": {"path": str(root / "none.tif")},
            "swaths": swaths,
            "reference_date": "2023-09-04",
        }
    )


def test_a_real_pair_forms_a_stack(real_data: Path, tmp_path: Path) -> None:
    products = real_data / "eo_tools-morocco-2023" / "S1"
    config = configuration(products, tmp_path, ["IW1", "IW2"])
    stack = index_stack(config).stack
    assert stack.dates == ("2023-09-04", "2023-09-16")
    assert len(stack.overlaps()) == len(stack.burst_ids) - 2
    baselines = []
    for burst in stack.burst_ids:
        image = stack.images[burst, "2023-09-16"]
        # No orbit file: the fallback is recorded on every burst.
        assert any("predicted" in flag or "annotation" in flag for flag in image.flags)
        if image.swath == "IW1":
            baselines.append(center_baseline_m(stack.reference(burst), image))
    # About 29 m by an independent processor, for the swath as a whole; it shrinks along the track.
    assert sum(baselines) / len(baselines) == pytest.approx(29, abs=2)
    assert baselines == sorted(baselines, reverse=True)
    assert baselines[0] - baselines[-1] < 4


def test_timing_facts_come_from_the_annotation(real_data: Path, tmp_path: Path) -> None:
    products = real_data / "eo_tools-morocco-2023" / "S1"
    images = index_stack(configuration(products, tmp_path, ["IW3"])).stack.images.values()
    assert {image.swath for image in images} == {"IW3"}
    for image in images:
        # As in the files; the middle of IW2 is read although only IW3 is wanted.
        assert image.rank == 10
        assert image.chirp_rate_hz_s == pytest.approx(8.0145e11, rel=1e-4)
        assert image.pri_s == pytest.approx(1 / 1685.817302492702, rel=1e-12)
        assert image.bistatic_delay_corrected is True
        middle_s = 5.6443530888e-3 + 0.5 * 26818 / 64.34523812571428e6
        assert image.mid_swath_range_time_s == pytest.approx(middle_s, abs=2e-8)


def test_products_without_the_middle_swath_remain_usable(real_data: Path, tmp_path: Path) -> None:
    products = tmp_path / "products"
    for product in sorted((real_data / "eo_tools-morocco-2023" / "S1").glob("*.SAFE")):
        ignore = shutil.ignore_patterns("*iw2*", "*iw3*")
        shutil.copytree(product, products / product.name, ignore=ignore)
    images = index_stack(configuration(products, tmp_path, ["IW1"])).stack.images.values()
    assert len(images) > 10
    assert {image.mid_swath_range_time_s for image in images} == {None}
