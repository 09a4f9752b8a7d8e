"""Strict YAML reader for configuration files.

The reader accepts the plain part of YAML 1.2 that a configuration needs: mappings, lists, strings,
numbers, ``true``/``false``/``null``. What YAML 1.1 turns into something else (``NO`` into false,
``0755`` into 493, ``2020-01-01`` into a date, ``12:30`` into 750) stays a string. Object tags,
alias bombs, endless nesting and oversized files are refused before anything is built from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bperp.stores.errors import BperpError, ConfigurationError, SecurityError

__all__ = ["OptionPath", "YamlDocument", "emit_scalar", "parse_yaml", "read_yaml"]

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 20
MAX_ALIASES = 50

OptionPath = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
_PLAIN_HINT = "write plain text, numbers, lists and mappings only"


@dataclass(frozen=True)
class YamlDocument:
    """Values of a configuration file and where each was written.

    Attributes
    ----------
    values : dict
        Nested dictionaries, lists, strings, numbers, booleans and None.
    lines : mapping
        Line number (1-based) of every value and key, by path such as ``("aoi", 0)``.
    source : str
        Name of the file for messages.
    """

    values: dict[str, Any]
    lines: Mapping[OptionPath, int] = field(default_factory=dict)
    source: str = "configuration"


def read_yaml(path: Path) -> YamlDocument:
    """Read a configuration file.

    Parameters
    ----------
    path : pathlib.Path
        YAML file, UTF-8, at most 1 MB.

    Returns
    -------
    YamlDocument
        Values and line numbers.

    Raises
    ------
    ConfigurationError
        C104 (file cannot be read), C107 (not valid YAML, tabs, key given twice).
    SecurityError
        X905 (object tags, alias bomb, nesting or size beyond the limits).
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            "C104",
            "the configuration file cannot be read",
            where=str(path),
            found=error.strerror or type(error).__name__,
            remedy="check the path, or create a file with 'bperp init'",
        ) from error
    return parse_yaml(content, source=str(path))


def parse_yaml(content: bytes | str, *, source: str = "configuration") -> YamlDocument:
    """Parse YAML text with the limits and rules of this module; errors as in ``read_yaml``."""
    text = _decode(content, source)
    builder = _Builder(source)
    try:
        values = builder.build(yaml.parse(text, Loader=yaml.SafeLoader))
    except BperpError:
        raise
    except yaml.YAMLError as error:
        raise _syntax_error(error, source) from error
    except (ValueError, OverflowError) as error:
        # PyYAML lets chr() and int() of malformed escapes and directives through.
        raise _bad_yaml("an escape or a directive is malformed", source, str(error)) from error
    if not isinstance(values, dict):
        raise _bad_yaml("the file is not a mapping of options", source, _kind(values))
    return YamlDocument(values, builder.lines, source)


def _decode(content: bytes | str, source: str) -> str:
    if len(content) > MAX_BYTES:
        raise SecurityError(
            "X905",
            "the configuration file is too large",
            where=source,
            expected=f"at most {MAX_BYTES} bytes",
            found="more",
            remedy="name files by patterns instead of listing them",
        )
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad_yaml("the file is not UTF-8 text", source, f"byte {error.start}") from error


class _Builder:
    """Build values from parser events, counting nodes, nesting and aliases."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[OptionPath, int] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0
        self._aliases = 0

    def build(self, events: Iterator[yaml.Event]) -> Any:
        values: Any = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent):
                continue
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _bad_yaml("more than one document in the file", self._at(event))
                values = self._node(next(events), events, ())
        return values

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: OptionPath) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._nodes
        self._count(event, 1)
        if len(path) > MAX_DEPTH:
            raise self._limit(event, f"nesting of at most {MAX_DEPTH} levels")
        self.lines.setdefault(path, _line(event))
        self._check_tag(event)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(events, path)
        else:
            value = self._mapping(events, path)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = (value, self._nodes - before)
        return value

    def _sequence(self, events: Iterator[yaml.Event], path: OptionPath) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, events, (*path, len(items))))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: OptionPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event)
            line = _line(event)
            if key in values:
                raise _bad_yaml(
                    f"key {key!r} is given twice",
                    self._at(event),
                    f"first on line {self.lines[(*path, key)]}",
                    "keep one of the two",
                )
            self.lines[(*path, key)] = line
            values[key] = self._node(next(events), events, (*path, key))
        return values

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _bad_yaml("an option name must be plain text", self._at(event))
        self._check_tag(event)
        return self._text(event)

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text = self._text(event)
        plain = event.implicit[0] and event.tag is None
        return _resolve(text) if plain else text

    def _text(self, event: yaml.ScalarEvent) -> str:
        text: str = event.value
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise _bad_yaml("half a surrogate pair in a string", self._at(event))
        return text

    def _alias(self, event: yaml.AliasEvent) -> Any:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._limit(event, f"at most {MAX_ALIASES} aliases")
        if event.anchor not in self._anchors:
            raise self._limit(event, f"alias *{event.anchor} after its anchor is complete")
        value, size = self._anchors[event.anchor]
        self._count(event, size)
        return value

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._limit(event, f"at most {MAX_NODES} values")

    def _check_tag(self, event: yaml.Event) -> None:
        tag = getattr(event, "tag", None)
        if tag in (None, "!"):
            return
        if tag == "tag:yaml.org,2002:str" and isinstance(event, yaml.ScalarEvent):
            return
        raise SecurityError(
            "X905",
            "a tag asks for an object",
            where=self._at(event),
            found=str(tag)[:80],
            remedy=_PLAIN_HINT,
        )

    def _limit(self, event: yaml.Event, rule: str) -> SecurityError:
        return SecurityError(
            "X905",
            "the file would grow beyond the limits of a configuration",
            where=self._at(event),
            expected=rule,
            remedy=_PLAIN_HINT,
        )

    def _at(self, event: yaml.Event) -> str:
        return f"{self.source}:{_line(event)}"


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _resolve(text: str) -> str | int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _bad_yaml(
    cause: str, where: str, found: str | None = None, remedy: str = "correct the YAML"
) -> ConfigurationError:
    return ConfigurationError("C107", cause, where=where, found=found, remedy=remedy)


def _syntax_error(error: yaml.YAMLError, source: str) -> ConfigurationError:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}:{mark.line + 1}" if mark is not None else source
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    if "\\t" in str(problem):
        return _bad_yaml("a tab is used for indentation", where, remedy="indent with blanks")
    return _bad_yaml("not valid YAML", where, str(problem)[:160])


def emit_scalar(value: str | float | bool | None) -> str:
    """Return one value as YAML text that ``parse_yaml`` reads back unchanged."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = repr(value)
        return f".{text}".replace(".-", "-.") if text.lstrip("-") in ("inf", "nan") else text
    if _PLAIN.fullmatch(value) and isinstance(_resolve(value), str):
        return value
    return '"' + "".join(map(_escape, value)) + '"'


def _escape(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    printable = (
        " " <= letter <= "~" or "\xa0" <= letter <= "\ud7ff" or "\ue000" <= letter <= "\ufffd"
    )
    if printable and letter not in "\u2028\u2029\ufeff":
        return letter
    return f"\\U{ord(letter):08x}"
