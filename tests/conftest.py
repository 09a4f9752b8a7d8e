"""Shared fixtures: where the real products are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real products; tests that need it skip when it is absent."""
    folder = Path(os.environ.get("BPERP_TESTDATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real products not found in {folder}: set BPERP_TESTDATA to the folder")
    return folder
