"""Add items to a list of a configuration file and leave the rest of its text as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bperp.flows.yaml_io import emit_scalar, parse_yaml
from bperp.stores.errors import ConfigurationError

__all__ = ["append_items"]


def append_items(path: Path, option: str, items: Sequence[str]) -> None:
    """Append strings to a list at the top level of a YAML file, in one step.

    Parameters
    ----------
    path : pathlib.Path
        File that ``read_yaml`` accepts.
    option : str
        Name of the option; a single value becomes a list.
    items : sequence of str
        What to append.

    Raises
    ------
    ConfigurationError
        C104 when the file cannot be edited without touching anything else.
    """
    text = path.read_text(encoding="utf-8")
    before = parse_yaml(text, source=str(path)).values
    known = before.get(option)
    expected = {**before, option: [*(known if isinstance(known, list) else [known]), *items]}
    edited = _inserted(text, option, [emit_scalar(item) for item in items])
    if edited is None or parse_yaml(edited, source=str(path)).values != expected:
        raise ConfigurationError(
            "C104",
            "the configuration file cannot be extended",
            where=f"{path}: {option}",
            expected="a plain list or a single value",
            remedy=f"add to {option}: by hand: {', '.join(items)}",
        )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(edited, encoding="utf-8")
    partial.chmod(path.stat().st_mode)
    partial.replace(path)


def _inserted(text: str, option: str, items: list[str]) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    values: dict[Any, Any] = (
        {key.value: value for key, value in root.value}
        if isinstance(root, yaml.MappingNode)
        else {}
    )
    node = values.get(option)
    if isinstance(node, yaml.ScalarNode):
        start, end = node.start_mark.index, node.end_mark.index
        rows = [text[start:end], *items]
        return text[:start].rstrip(" ") + "".join(f"\n  - {row}" for row in rows) + text[end:]
    if not isinstance(node, yaml.SequenceNode):
        return None
    if node.flow_style:
        end = node.end_mark.index - 1
        comma = ", " if node.value else ""
        return text[:end].rstrip() + comma + ", ".join(items) + text[end:]
    # Behind a comment that may follow the last item on its line.
    end = text.find("\n", node.value[-1].end_mark.index)
    end = len(text) if end < 0 else end
    indent = " " * node.start_mark.column
    return text[:end] + "".join(f"\n{indent}- {item}" for item in items) + text[end:]
