"""A configuration that is edited between runs: what depends on it, and only that, is made again."""

from __future__ import annotations

import re

import pytest
from fault_registry import fault
from root_state import root_state

pytestmark = pytest.mark.slow

ORDER = (
    "ingest",
    "geometry",
    "misregistration",
    "alignment",
    "coregister",
    "seams",
    "interferogram",
    "filter",
    "geocode",
    "amplitude",
    "scatterers",
    "timeseries",
)


def edit(stack, option: str, value: str) -> None:
    """Change one option in the file, as a user does."""
    text = stack.config.read_text()
    changed = re.sub(rf"^( *)#? ?{option}:[^\n#]*", rf"\g<1>{option}: {value} ", text, flags=re.M)
    assert changed != text, option
    stack.config.write_text(changed)


def statuses(forks, stack) -> dict[str, str]:
    command = ("run", stack.config, "--to", "timeseries", "--dry-run", "--json")
    done = forks.run(*command)
    assert done.code == 0, done.stdout
    return {stage["name"]: stage["status"] for stage in done.document["stages"]}


@fault("G14", level="T2")
@pytest.mark.parametrize(
    ("option", "value", "touched"),
    [
        ("min_arc_coherence", "0.77", {"timeseries"}),
        ("max_amplitude_dispersion", "0.31", {"amplitude", "scatterers", "timeseries"}),
        ("name", "another-name", set()),
    ],
)
def test_only_what_depends_on_an_edited_option_is_planned(forks, stack, option, value, touched):
    before = root_state(stack.root)
    assert set(statuses(forks, stack).values()) == {"current"}
    edit(stack, option, value)
    found = statuses(forks, stack)
    assert {name for name, status in found.items() if status != "current"} == touched
    assert root_state(stack.root) == before, "a dry run changes nothing"


@fault("G14", level="T2")
def test_an_edited_option_leaves_the_digests_of_other_steps_and_can_be_taken_back(forks, stack):
    before = root_state(stack.root)
    honest = stack.config.read_text()
    no_pictures = "from bperp.flows import run; run.write_pictures_and_report = lambda *_: {}\n"
    command = ("run", stack.config, "--to", "timeseries", "--json")
    edit(stack, "min_arc_coherence", "0.77")
    done = forks.run(*command, prepare=no_pictures)
    assert done.code == 0, done.stdout
    ran = [stage["name"] for stage in done.document["stages"] if stage["run"]]
    assert ran == ["timeseries"]
    after = root_state(stack.root)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert all("timeseries" in name or name == "stack.json" for name in changed), changed
    stack.config.write_text(honest)
    assert forks.run(*command, prepare=no_pictures).code == 0
    assert root_state(stack.root) == before
