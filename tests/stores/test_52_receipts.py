"""Receipts are written once, ids depend on content only, markers gate products."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bperp.stores.blocks import BlockRecord
from bperp.stores.errors import StorageError
from bperp.stores.objects import open_objects
from bperp.stores.receipts import Ledger, Marker, Receipt, content_digest, task_id

BLOCK = BlockRecord("scene/a", "a", (0, 0), (4, 4), "ab" * 32, 16)


@pytest.fixture(params=["local", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path):
    root = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    objects = open_objects(root)
    yield Ledger(objects)
    objects.remove_tree("")


def identity(**changes) -> str:
    base = {
        "stage": "ingest",
        "version": "1",
        "key": "t052/2020-01-01",
        "parameters": {"b": [1, 2.5], "a": "x"},
        "inputs": {"geometry/t052": "0" * 64},
        "layouts": {"scene/a": "f" * 64},
    }
    return task_id(**{**base, **changes})


def receipt(**changes) -> Receipt:
    base = Receipt(
        id=identity(),
        stage="ingest",
        version="1",
        key="t052/2020-01-01",
        inputs={"geometry/t052": "0" * 64},
        parameters_digest="0" * 64,
        blocks=(BLOCK,),
        summary={"mean": 0.1},
        host="here",
        seconds=1.0,
    )
    return replace(base, **changes)


def test_the_id_is_fixed_forever():
    # From printf | sha256sum: a change of the recipe orphans every receipt and must be noticed.
    assert identity() == "ad3ad4b2fcb02318cb504e66457eca7183b0779ce8e15c292386c49ce34036d7"


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "other"},
        {"version": "2"},
        {"key": "t052/2020-01-02"},
        {"parameters": {"b": [1, 2.5000001], "a": "x"}},
        {"inputs": {"geometry/t052": "1" + "0" * 63}},
        {"inputs": {}},
        {"layouts": {"scene/a": "e" * 64}},
    ],
)
def test_everything_that_determines_bytes_changes_the_id(change):
    assert identity(**change) != identity()


def test_the_order_of_parameters_does_not_change_the_id():
    assert identity(parameters={"a": "x", "b": (1, 2.5)}) == identity()


def test_a_receipt_comes_back_as_it_was(ledger):
    ledger.record(receipt())
    assert ledger.load("ingest", {"t052/2020-01-01": identity()}) == {"t052/2020-01-01": receipt()}
    assert ledger.recorded("ingest") == {"t052/2020-01-01": {identity()[:12]}}


@pytest.mark.parametrize("key", ["a b/ü%", "x.json", "t052_1_iw1/2020-01-01", "..", "a/../b"])
def test_keys_of_any_kind_keep_their_place(ledger, key):
    try:
        ledger.record(receipt(key=key))
    except ValueError:
        assert ".." in key.split("/")
        return
    assert list(ledger.recorded("ingest")) == [key]
    assert ledger.load("ingest", {key: identity()})[key].key == key


def test_the_second_equal_receipt_yields_the_first(ledger):
    ledger.record(receipt())
    assert ledger.record(receipt(host="there", seconds=9.0, peak_rss_bytes=7)).host == "here"


@pytest.mark.parametrize(
    "change",
    [{"blocks": (replace(BLOCK, sha256="cd" * 32),)}, {"blocks": ()}, {"summary": {"mean": 0.2}}],
)
def test_a_second_different_outcome_is_a_hard_error(ledger, change):
    ledger.record(receipt())
    with pytest.raises(StorageError, match=r"R812.*t052/2020-01-01"):
        ledger.record(receipt(**change))
    assert ledger.load("ingest", {"t052/2020-01-01": identity()})["t052/2020-01-01"] == receipt()


def test_the_order_of_blocks_is_no_difference(ledger):
    other = replace(BLOCK, origin=(4, 0))
    ledger.record(receipt(blocks=(BLOCK, other)))
    ledger.record(receipt(blocks=(other, BLOCK)))


def test_an_unreadable_receipt_is_absent_and_can_be_written_again(ledger):
    ledger.record(receipt())
    (name,) = ledger.objects.names("receipts")
    ledger.objects.write(name, b'{"id": "half')
    assert ledger.load("ingest", {"t052/2020-01-01": identity()}) == {}
    ledger.record(receipt())
    assert len(ledger.load("ingest", {"t052/2020-01-01": identity()})) == 1


def test_a_receipt_of_another_full_id_is_not_taken(ledger):
    ledger.record(receipt())
    lookalike = identity()[:12] + "0" * 52
    assert ledger.load("ingest", {"t052/2020-01-01": lookalike}) == {}


def test_receipts_that_left_the_plan_are_retired(ledger):
    ledger.record(receipt())
    ledger.record(receipt(id=identity(version="2")))
    ledger.record(receipt(key="gone"))
    ledger.record(receipt(stage="ingest2"))
    assert ledger.retire("ingest", {"t052/2020-01-01": identity()}) == 2
    assert ledger.recorded("ingest") == {"t052/2020-01-01": {identity()[:12]}}
    assert list(ledger.recorded("ingest2")) == ["t052/2020-01-01"]


def test_a_receipt_holds_what_the_contract_asks_for(ledger):
    ledger.record(receipt())
    (name,) = ledger.objects.names("receipts")
    assert name == f"receipts/ingest/t052/2020-01-01.{identity()[:12]}.json"
    record = json.loads(ledger.objects.read(name))
    wanted = {"id", "stage", "version", "key", "inputs", "parameters_digest", "blocks", "summary"}
    assert wanted | {"code_version", "host", "seconds", "bytes_written"} <= set(record)
    assert set(record["blocks"][0]) >= {"product", "variable", "origin", "shape", "sha256"}


def test_markers_vouch_and_are_withdrawn(ledger):
    marker = Marker("ingest", "1", {"k": "0" * 64}, {"bursts/x/slc": {"content": "1"}})
    assert ledger.vouched_products() == frozenset()
    ledger.write_marker(marker)
    assert ledger.marker("ingest") == marker
    assert ledger.vouched_products() == {"bursts/x/slc"}
    ledger.objects.write("markers/broken.json", b"{")
    assert list(ledger.markers()) == ["ingest"]
    ledger.remove_marker("ingest")
    assert ledger.vouched_products() == frozenset()


def test_the_content_digest_covers_template_place_and_bytes():
    base = content_digest("t", [BLOCK, replace(BLOCK, origin=(4, 0))])
    assert base == content_digest("t", [replace(BLOCK, origin=(4, 0)), BLOCK])
    assert base != content_digest("u", [BLOCK, replace(BLOCK, origin=(4, 0))])
    assert base != content_digest("t", [BLOCK, replace(BLOCK, origin=(8, 0))])
    assert base != content_digest("t", [BLOCK, replace(BLOCK, origin=(4, 0), sha256="00" * 32)])
