"""The strict YAML reader: JSON as oracle, YAML 1.1 surprises, bombs, broken files."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bperp.flows.yaml_io import MAX_BYTES, emit_scalar, parse_yaml, read_yaml
from bperp.stores.errors import BperpError, ConfigurationError, SecurityError

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)

# PyYAML reads \ud83d\ude00 as two half characters, so the JSON oracle keeps astral letters raw,
# and control characters are not allowed raw in YAML.
letters = st.characters(
    codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Co", "Cn")
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(letters, max_size=30)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(letters, max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def load(text: str | bytes) -> Any:
    return parse_yaml(text).values


@SETTINGS
@given(st.dictionaries(st.text(letters, max_size=12), values, max_size=4))
def test_json_is_read_as_json(document: dict[str, Any]) -> None:
    assert load(json.dumps(document, ensure_ascii=False)) == document


@SETTINGS
@given(scalars | st.text(max_size=30))
def test_emitted_scalars_come_back_with_their_type(value: Any) -> None:
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        return
    back = load(f"key: {emit_scalar(value)}\nlist: [{emit_scalar(value)}]")
    assert back == {"key": value, "list": [value]}
    assert type(back["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NO", "NO"),  # YAML 1.1: False
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("2020-01-01", "2020-01-01"),  # YAML 1.1: datetime.date
        ("20200101", 20200101),
        ("0755", "0755"),  # YAML 1.1: 493
        ("0o17", "0o17"),
        ("12:30", "12:30"),  # YAML 1.1: 750
        ("1_000", "1_000"),
        ("1e3", 1000.0),  # YAML 1.1: a string
        ("-.5", -0.5),
        ("!!str 12", "12"),
        ("'12'", "12"),
        ("~", None),
        ("", None),
        ("0", 0),
    ],
)
def test_plain_scalars_mean_what_they_show(text: str, expected: object) -> None:
    value = load(f"key: {text}")["key"]
    assert value == expected
    assert type(value) is type(expected)


def test_infinities_are_numbers() -> None:
    assert load("a: [.inf, -.inf, .nan]")["a"][:2] == [math.inf, -math.inf]
    assert math.isnan(load("a: .nan")["a"])


def test_lines_are_kept_for_messages() -> None:
    document = parse_yaml("# comment\na: 1\nb:\n  c: [1,\n    2]\n")
    assert document.lines["a",] == 2
    assert document.lines["b", "c"] == 4
    assert document.lines["b", "c", 1] == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n\tb: 2\n", "tab"),
        ("a: 1\nb: 2\na: 3\n", "twice"),
        ("a: {b: 1, b: 2}\n", "twice"),
        ("a: [1, 2\n", "not valid YAML"),
        ("- 1\n- 2\n", "not a mapping"),
        ("", "not a mapping"),
        ("a: 1\n---\nb: 2\n", "more than one document"),
        ('a: "\\UFFFFFFFF"\n', "malformed"),
        ('a: "\\ud800"\n', "surrogate"),
        ("? [1, 2]\n: 3\n", "plain text"),
    ],
)
def test_broken_yaml_is_one_configuration_error(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        load(text)
    assert caught.value.code == "C107"


def test_duplicate_key_names_both_lines() -> None:
    with pytest.raises(ConfigurationError, match=r":3: .*first on line 1"):
        load("root: 1\nslc: 2\nroot: 3\n")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

# Ten levels of four: fewer aliases than the limit, a million values.
SHORT_BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 4)}]\n"
    for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['true']\n",
        "!!python/name:os.system a: 1\n",
        "a: !custom 1\n",
        "a: !!int '3'\n",
        BOMB,
        SHORT_BOMB,
        "a: &a [*a]\n",
        "a: *nothing\n",
        "a: " + "[" * 50 + "]" * 50 + "\n",
        "a: [" + "1, " * 30_000 + "1]\n",
        "x: &x 1\ny: [" + ", ".join(["*x"] * 100) + "]\n",
        "a: 1\n" + "#" * MAX_BYTES,
    ],
    ids=["object", "name-key", "custom", "int", "bomb",
        "short-bomb", "self", "dangling", "deep", "many",
         "aliases", "large"],
)  # fmt: skip
def test_what_could_run_or_grow_is_refused_quickly(text: str) -> None:
    start = time.process_time()
    with pytest.raises(SecurityError) as caught:
        load(text)
    assert caught.value.code == "X905"
    assert caught.value.exit_code == 6
    assert time.process_time() - start < 2.0


def test_an_ordinary_alias_is_allowed() -> None:
    assert load("a: &looks [4, 20]\nb: *looks\n") == {"a": [4, 20], "b": [4, 20]}


def test_byte_order_mark_and_wrong_encoding(tmp_path: Path) -> None:
    assert load(b"\xef\xbb\xbfa: 1") == {"a": 1}
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load(b"a: \xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        read_yaml(tmp_path / "absent.yaml")
    assert caught.value.code == "C104"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_yaml(tmp_path)


@SETTINGS
@given(st.binary(max_size=200) | st.text("&*!|>[]{}:-?#%@`'\"\\ \n\ta1.", max_size=120))
def test_any_bytes_give_values_or_a_typed_error(content: bytes | str) -> None:
    try:
        result: object = parse_yaml(content).values
    except BperpError as error:
        result = error
    # Anything else, such as a ValueError of the parser, has ended the test already.
    assert isinstance(result, dict | ConfigurationError | SecurityError)
