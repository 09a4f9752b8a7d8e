"""Products appended to a configuration file: the rest of its text stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from bperp.flows.yaml_edit import append_items
from bperp.flows.yaml_io import read_yaml
from bperp.stores.errors import ConfigurationError

NEW = ["/data/new one.SAFE", "s3://bucket/more: 1.zip"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("slc:\n  - a.zip\n  - b.zip # last\nroot: x\n",
         "slc:\n  - a.zip\n  - b.zip # last\n  - {0}\n  - {1}\nroot: x\n"),
        ("root: x\nslc:\n- a.zip", "root: x\nslc:\n- a.zip\n- {0}\n- {1}"),
        ("slc: [a.zip, 'b c.zip'] # both\nroot: x\n",
         "slc: [a.zip, 'b c.zip', {0}, {1}] # both\nroot: x\n"),
        ("slc: []\n", "slc: [{0}, {1}]\n"),
        ("# why\nslc: 'safe/*.zip' # all\nroot: x\n",
         "# why\nslc:\n  - 'safe/*.zip'\n  - {0}\n  - {1} # all\nroot: x\n"),
    ],
)  # fmt: skip
def test_only_the_new_items_are_written(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(before)
    path.chmod(0o640)
    known = read_yaml(path).values["slc"]
    append_items(path, "slc", NEW)
    assert path.read_text() == after.format(*(f'"{item}"' for item in NEW))
    assert path.stat().st_mode & 0o777 == 0o640
    listed = known if isinstance(known, list) else [known]
    assert read_yaml(path).values["slc"] == [*listed, *NEW]
    assert [item.name for item in tmp_path.iterdir()] == ["stack.yaml"]


@pytest.mark.parametrize("text", ["root: x\n", "slc: {a: b}\n", "slc: &all [a.zip]\nmore: *all\n"])
def test_what_cannot_be_extended_safely_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"C104.*by hand"):
        append_items(path, "slc", NEW)
    assert path.read_text() == text
