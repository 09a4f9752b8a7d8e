"""Guard of the throughput: ratios to plain numpy and scipy, measured in the same run.

The limits are about half of what was measured on a quiet machine: a lost vectorisation (a factor of
4 to 10) fails, a busy neighbour does not. ``make bench`` prints the figures themselves.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LEAST = {
    "zero_doppler": 25.0,
    "resample": 8.0,
    "interferogram_box": 4.0,
    "interferogram_multilook": 2.5,
    "goldstein": 3.5,
}


@pytest.mark.slow
def test_kernels_keep_their_lead_over_plain_numpy() -> None:
    program = Path(__file__).with_name("bench.py")
    command = [sys.executable, str(program), *LEAST]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(found)
    figures = dict(line.split()[:2] for line in found.splitlines())
    for name, least in LEAST.items():
        assert float(figures[name]) > 0.0
        assert float(figures[f"{name}.ratio"]) > least, found


def test_an_unknown_figure_is_refused_with_the_known_ones() -> None:
    program = Path(__file__).with_name("bench.py")
    command = [sys.executable, str(program), "resampel"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "resample" in result.stderr
    assert "pair_2_bursts" in result.stderr
    assert "cost_exponent" in result.stderr
