"""Hardened XML: faults B01, B02, B19, I01, I02, I03 and the typed getters."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bperp.stores import xml
from bperp.stores.errors import BperpError, ProductError, SecurityError

BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;">]><product>&c;</product>"""


def parsed(text: str) -> xml.Element:
    return xml.parse_xml(text.encode(), "s1a.xml")


@pytest.mark.parametrize(
    "data",
    [
        BOMB,
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>',
        b'<r><a/></r><!doctype r SYSTEM "http://127.0.0.1/x.dtd">',
    ],
)
def test_i01_i02_document_type_is_refused_before_parsing(data):
    begin = time.perf_counter()
    with pytest.raises(SecurityError, match=r"^X901 bad\.xml: .*fix:") as caught:
        xml.parse_xml(data, "bad.xml")
    assert caught.value.exit_code == 6
    assert time.perf_counter() - begin < 0.1


def test_i02_document_type_does_not_hide_in_another_encoding():
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE r [<!ENTITY x "y">]><r>&x;</r>'
    with pytest.raises(ProductError, match=r"D301.*not UTF-8"):
        xml.parse_xml(text.encode("utf-16"), "bad.xml")
    with pytest.raises(ProductError, match="D301"):
        xml.parse_xml(b"<?xml version='1.0' encoding='UTF-7'?><r/>", "bad.xml")


def test_i02_xinclude_is_text_and_nothing_else():
    text = '<r xmlns:x="http://www.w3.org/2001/XInclude"><x:include href="/etc/passwd"/></r>'
    assert parsed(text).findtext("{http://www.w3.org/2001/XInclude}include") == ""


def test_i03_size_and_depth_are_limited():
    with pytest.raises(SecurityError, match=r"X902.*at most 100 bytes; found 107"):
        xml.parse_xml(b"<r>" + b"x" * 100 + b"</r>", "big.xml", limit_bytes=100)
    with pytest.raises(ProductError, match="D301"):
        xml.parse_xml(b"<r>" * 100_000 + b"</r>" * 100_000, "deep.xml")


def test_b01_malformed_names_file_and_line():
    with pytest.raises(ProductError, match=r"D301 s1a\.xml: malformed XML at line 3"):
        parsed("<r>\n<a>1</a>\n<b></r>")


@pytest.mark.parametrize("name", ["a b/ä#x?.xml", "x" * 300 + ".xml"])
def test_elements_remember_any_file_name(name):
    assert xml.file_of(xml.parse_xml(b"<r/>", name)) == name


def test_b02_missing_or_empty_names_path_and_file():
    root = parsed("<r><a><b> </b><c>NULL</c></a></r>")
    for path, cause in (("a/b", "empty"), ("a/c", "empty"), ("a/d", "no element")):
        with pytest.raises(ProductError, match=rf"D302 s1a\.xml: {cause}.* /r/{path}") as caught:
            xml.number(root, path)
        assert caught.value.code == "D302"
    assert xml.optional_text(root, "a/c") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.5E+3", 1500.0), (" 2.5 ", 2.5), ("-1e-03", -0.001), ("+7", 7.0), (".5", 0.5)],
)
def test_b19_number_formats_that_are_numbers(text, value):
    assert xml.number(parsed(f"<r><v>{text}</v></r>"), "v") == value


@pytest.mark.parametrize("text", ["1,5", "1_000", "nan", "inf", "1e999", "٣.١", "0x10", "1 2", "a"])
def test_b19_number_formats_that_are_none(text):
    root = parsed(f"<r><v>{text}</v></r>")
    for getter in (xml.number, xml.integer):
        with pytest.raises(ProductError, match=r"D301.*/r/v"):
            getter(root, "v")
    if text != "1 2":
        with pytest.raises(ProductError, match="D301"):
            xml.numbers(root, "v")


def test_lists_have_the_length_that_they_claim():
    root = parsed('<r><v count="3">1 -2\n3 </v><w count="2">1 2 3</w></r>')
    assert xml.integers(root, "v").tolist() == [1, -2, 3]
    assert xml.numbers(root, "v").dtype == np.float64
    for getter in (xml.integers, xml.numbers):
        with pytest.raises(ProductError, match=r"D301.*expected 2 values; found '3 values'"):
            getter(root, "w")
    assert xml.integers(root, "w", check_count=False).size == 3


def test_truth_values():
    root = parsed("<r><a>true</a><b>0</b><c>yes</c></r>")
    assert xml.boolean(root, "a") is True
    assert xml.boolean(root, "b") is False
    with pytest.raises(ProductError, match="D301"):
        xml.boolean(root, "c")


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2023-09-04T06:37:31.072288", "2023-09-04T06:37:31.072288000"),
        ("2023-09-04T06:37:31", "2023-09-04T06:37:31"),
        ("2023-09-04T06:37:31.123456789Z", "2023-09-04T06:37:31.123456789"),
        ("UTC=2014-10-04T03:00:54.000000", "2014-10-04T03:00:54"),
        ("2020-02-29T23:59:59.9+00:00", "2020-02-29T23:59:59.9"),
        ("2023-01-01T01:30:00+02:00", "2022-12-31T23:30:00"),
        ("2022-12-31T22:30:00-0130", "2023-01-01T00:00:00"),
        ("2016-12-31T23:59:60", "2017-01-01T00:00:00"),
        ("1969-12-31T23:59:59.5", "1969-12-31T23:59:59.5"),
    ],
)
def test_times_to_the_nanosecond(text, iso):
    assert xml.parse_time_ns(text) == int(np.datetime64(iso, "ns").astype(np.int64))


@pytest.mark.parametrize(
    "text",
    ["", "2023-02-29T00:00:00", "2023-13-01T00:00:00", "2023-01-01T24:00:00", "20230101T000000",
     "2023-01-01 00:00:00", "9999-01-01T00:00:00", "2023-01-01T00:60:00", "2023-01-01T00:00:61"],
)  # fmt: skip
def test_what_is_no_time(text):
    assert xml.parse_time_ns(text) is None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_a_typed_error(data):
    code = "parsed"
    try:
        xml.number(xml.parse_xml(data, "fuzz.xml"), "a")
    except BperpError as error:
        code = error.code if "\n" not in str(error) else "several lines"
    assert code in {"parsed", "X901", "X902", "D301", "D302"}


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_time_or_none(text):
    value = xml.parse_time_ns(text)
    assert value is None or abs(value) < 2**63
