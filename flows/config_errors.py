"""Turn the many faults of a pydantic validation into the one typed error that users see."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bperp.flows.masking import mask_secrets
from bperp.flows.yaml_io import OptionPath
from bperp.flows.yaml_writer import section_model
from bperp.stores.errors import BperpError, ConfigurationError, SecurityError, StackError

__all__ = ["configuration_fault", "nearest_name", "option_names", "option_path"]

_CLASSES: Mapping[str, type[BperpError]] = {
    "C": ConfigurationError,
    "S": StackError,
    "X": SecurityError,
}
_OLD_BOOLEANS = ("yes", "no", "on", "off", "y", "n")


@dataclass(frozen=True)
class _Fault:
    code: str
    path: OptionPath
    cause: str
    expected: str | None
    found: str | None
    remedy: str


def configuration_fault(
    error: ValidationError,
    model: type[BaseModel],
    *,
    source: str,
    lines: Mapping[OptionPath, int] | None = None,
) -> BperpError:
    """Return one error with the gravest fault in full and all others counted by path.

    Parameters
    ----------
    error : pydantic.ValidationError
        What pydantic found.
    model : pydantic model class
        The model that was validated: gives units, ranges and known names.
    source : str
        File name for the message.
    lines : mapping, optional
        Line numbers by path, from ``read_yaml``.

    Returns
    -------
    BperpError
        SecurityError before unknown names (C101) before all others, in the order of the file.
    """
    faults = sorted((_describe(item, model) for item in error.errors()), key=_gravity)
    first, others = faults[0], faults[1:]
    cause = first.cause
    if others:
        names = ", ".join(dict.fromkeys(option_path(item.path) for item in others[:5]))
        more = " ..." if len(others) > 5 else ""
        cause = f"{cause} ({len(others)} more: {names}{more})"
    line = _line_of(first.path, lines or {})
    position = f"{source}:{line}" if line else source
    where = f"{position}: {option_path(first.path)}" if first.path else position
    kind = _CLASSES[first.code[0]]
    return kind(
        first.code,
        cause,
        where=where,
        expected=first.expected,
        found=first.found,
        remedy=first.remedy,
    )


def option_path(path: Sequence[str | int]) -> str:
    """Write a path the way users do: ``interferogram.looks[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def option_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every option as a dotted name, sections included."""
    for name, info in model.model_fields.items():
        yield prefix + name
        section = section_model(info)
        if section is not None:
            yield from option_names(section, f"{prefix}{name}.")


def nearest_name(name: str, known: Sequence[str], cutoff: float = 0.7) -> str | None:
    """Return the known name closest to a misspelt one, or None."""
    lowered = {item.lower(): item for item in known}
    matches = difflib.get_close_matches(name.lower()[:80], list(lowered), n=1, cutoff=cutoff)
    return lowered[matches[0]] if matches else None


def _gravity(item: _Fault) -> int:
    return 0 if item.code.startswith("X") else 1 if item.code == "C101" else 2


def _line_of(path: OptionPath, lines: Mapping[OptionPath, int]) -> int | None:
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> _Fault:
    path = tuple(part for part in detail["loc"] if not str(part).startswith("<"))
    context, value = detail.get("ctx", {}), detail["input"]
    info, section = _find(model, path)
    expected = _expected(info)
    if detail["type"] == "extra_forbidden":
        return _unknown(path, section, model)
    if detail["type"] == "bperp":
        rule, remedy = context["expected"] or None, context["remedy"] or "correct the value"
        return _Fault(context["code"], path, context["message"], rule, _show(value), remedy)
    if detail["type"] == "missing" and isinstance(path[-1], int):
        return _Fault("C102", path, "the list is too short", expected, None, _remedy(None, path))
    if detail["type"] == "missing" or value is None:
        hint = f"set {option_path(path)}: {info.description if info else 'a value'}"
        return _Fault("C102", path, "a required option has no value", expected, None, hint)
    cause = detail["msg"].replace("Input should", "the value should").replace("Tuple", "the list")
    cause = re.sub(r"a valid dictionary or .*", "a section of options", cause)
    if "<auto>" in detail["loc"]:
        cause = "the value is neither 'auto' nor a valid choice"
    return _Fault("C102", path, cause, expected, _show(value), _remedy(value, path))


def _unknown(path: OptionPath, section: type[BaseModel], model: type[BaseModel]) -> _Fault:
    name = str(path[-1])
    siblings = list(section.model_fields)
    guess = nearest_name(name, siblings)
    if guess is None:
        elsewhere = {known.rsplit(".", 1)[-1]: known for known in option_names(model)}
        found_leaf = nearest_name(name, list(elsewhere), 0.8)
        guess = elsewhere[found_leaf] if found_leaf else None
    if guess:
        return _Fault("C101", path, "unknown option", None, None, f"did you mean {guess!r}?")
    rule = f"one of {', '.join(siblings)}"
    return _Fault("C101", path, "unknown option", rule, None, "remove it; 'bperp init' lists all")


def _find(model: type[BaseModel], path: OptionPath) -> tuple[FieldInfo | None, type[BaseModel]]:
    """Return the field at a path and the innermost section on the way."""
    info: FieldInfo | None = None
    section = model
    for part in path:
        if info is not None:
            inner = section_model(info)
            if inner is None:
                return info, section
            section = inner
        if part not in section.model_fields:
            return None, section
        info = section.model_fields[str(part)]
    return info, section


def _expected(info: FieldInfo | None) -> str | None:
    if info is None:
        return None
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    allowed, unit = str(extra.get("allowed", "")), extra.get("unit")
    return (f"{allowed} ({unit})" if unit else allowed) or None


def _show(value: Any) -> str:
    text = mask_secrets("nothing" if value is None else repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _remedy(value: Any, path: OptionPath) -> str:
    if isinstance(value, str) and value.lower() in _OLD_BOOLEANS:
        return "write true or false"
    return f"correct {option_path(path)}" if path else "correct the file"
