"""The record of a root: damaged ones are named, and options that changed are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bperp.flows.config import StackConfig
from bperp.flows.root import RECORD, Root
from bperp.flows.run import changed_options
from bperp.stores.canonical import canonical_json
from bperp.stores.errors import StorageError

MINIMAL = {"slc": ["a.zip"], "dem": {"path": "dem.tif"}}


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b'{"stack": {}}', b'{"stack": {"images": 3}}'])
def test_a_damaged_record_is_r803_with_the_way_out(tmp_path: Path, text: bytes) -> None:
    (tmp_path / RECORD).write_bytes(text)
    with pytest.raises(StorageError, match=rf"R803 {tmp_path}/{RECORD}.*remove {RECORD}"):
        Root.open(str(tmp_path))


def test_a_folder_without_a_record_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="R801"):
        Root.open(str(tmp_path))


def test_options_that_changed_are_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StackConfig.from_values({**MINIMAL, "root": str(tmp_path)})
    assert changed_options(config) == {}
    record = Root(None, None, config.as_values(), ())  # type: ignore[arg-type]
    monkeypatch.setattr(Root, "find", lambda _store: record)
    assert changed_options(config) == {}
    values = {**config.as_values(), "coregister": {"range_taps": 8}}
    later = StackConfig.from_values(values)
    assert changed_options(later) == {"coregister.range_taps": ("auto", 8)}
    assert canonical_json(list(changed_options(later)["coregister.range_taps"])) == b'["auto",8]'
