"""Commented YAML from pydantic models: the explanation of an option is its declaration."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bperp.flows.yaml_io import emit_scalar

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["commented_yaml", "section_model"]

_COMMENT_WIDTH = 96


def commented_yaml(model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """Write every option of a model with description, unit, range and default as comments.

    Parameters
    ----------
    model : pydantic model class
        Fields carry ``description`` and, in ``json_schema_extra``, ``unit`` and ``allowed``.
    values : mapping
        Values that differ from the defaults; nested like the model. Options without value and
        without default are written as ``null`` with the word ``REQUIRED``.

    Returns
    -------
    str
        YAML text; reading it gives the values and all defaults.
    """
    return "\n".join(_model_lines(model, values, 0)).strip() + "\n"


def _model_lines(model: type[BaseModel], values: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for position, (name, info) in enumerate(model.model_fields.items()):
        section = section_model(info)
        if position or not depth:
            yield ""
        yield from _comment(info, indent, is_section=section is not None)
        given = values.get(name, _default(info))
        if section is not None:
            yield f"{indent}{name}:"
            inner = given if isinstance(given, Mapping) else {}
            yield from _model_lines(section, inner, depth + 1)
        elif name not in values and info.is_required():
            yield f"{indent}{name}: null  # REQUIRED"
        else:
            yield from _value_lines(name, given, indent)


def section_model(info: FieldInfo) -> type[BaseModel] | None:
    """Return the model class of a field that is a section of options, else None."""
    kind = info.annotation
    return kind if isinstance(kind, type) and hasattr(kind, "model_fields") else None


def _default(info: FieldInfo) -> Any:
    return None if info.is_required() else info.get_default(call_default_factory=True)


def _comment(info: FieldInfo, indent: str, *, is_section: bool) -> Iterator[str]:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    width = _COMMENT_WIDTH - len(indent)
    lines = textwrap.wrap(info.description or "", width, break_on_hyphens=False)
    if not is_section:
        default = "required" if info.is_required() else f"default {_inline(_default(info))}"
        unit = f"unit {extra['unit']}" if extra.get("unit") else ""
        facts = "; ".join(part for part in (unit, str(extra.get("allowed", "")), default) if part)
        lines += textwrap.wrap(f"[{facts}]", width, break_on_hyphens=False)
    yield from (f"{indent}# {line}" for line in lines)


def _value_lines(name: str, value: Any, indent: str) -> Iterator[str]:
    is_long = isinstance(value, list | tuple) and any(isinstance(item, str) for item in value)
    if not is_long or len(_inline(value)) < 60:
        yield f"{indent}{name}: {_inline(value)}"
        return
    yield f"{indent}{name}:"
    yield from (f"{indent}  - {_inline(item)}" for item in value)


def _inline(value: Any) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        pairs = (f"{emit_scalar(key)}: {_inline(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return emit_scalar(value)
