"""Which steps of the chain a run covers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from bperp.pipeline.stage import Stage
from bperp.stores.errors import ConfigurationError


@dataclass(frozen=True)
class Selection:
    """Which steps to run: a range, or exactly ``only``; default all."""

    first: str | None = None
    last: str | None = None
    only: tuple[str, ...] = ()

    def resolve(self, stages: Sequence[Stage]) -> tuple[str, ...]:
        """Return the names of the selected stages in order; raises as ``among`` does."""
        return self.among([stage.name for stage in stages])

    def among(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the selected steps out of all steps, in order.

        Raises
        ------
        ConfigurationError
            C101 unknown step, C102 the first comes after the last.
        """
        for name in (self.first, self.last, *self.only):
            if name is not None and name not in names:
                raise _unknown_step(name, names)
        if self.only:
            return tuple(name for name in names if name in self.only)
        start = names.index(self.first) if self.first else 0
        stop = names.index(self.last) if self.last else len(names) - 1
        if start > stop:
            raise ConfigurationError(
                "C102",
                "the first step comes after the last",
                where=f"--from {self.first} --to {self.last}",
                expected="an earlier step in --from",
                remedy=f"the order is {', '.join(names)}",
            )
        return tuple(names[start : stop + 1])


def _unknown_step(name: str, names: Sequence[str]) -> ConfigurationError:
    near = difflib.get_close_matches(name, names, n=1)
    return ConfigurationError(
        "C101",
        "there is no step of this name",
        where=name,
        expected=", ".join(names),
        remedy=f"did you mean {near[0]}?" if near else "choose one of these",
    )
