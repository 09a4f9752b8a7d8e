"""The index of a real pair: bursts, scene and baseline as the chain uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bperp.flows.config import StackConfig
from bperp.flows.stack_index import index_stack
from bperp.pipeline.baseline import center_baseline_m

pytestmark = pytest.mark.realdata


def test_a_real_pair_forms_a_stack(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "eo_tools-morocco-2023"
    config = StackConfig.from_values(
        {
            "root": str(tmp_path / "root"),
            "slc": [str(folder / "S1" / "*.SAFE")],
            "orbits": {"folders": [], "policy": "allow_predicted"},
            "dem": {"path": str(tmp_path / "none.tif")},
            "swaths": ["IW1", "IW2"],
            "reference_date": "2023-09-04",
        }
    )
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
