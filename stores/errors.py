"""Typed errors with stable codes: what users see when data, configuration or a machine is at fault.

Families (the letter of the code): C configuration, D product and annotation, S stack, O orbit and
time, E elevation and auxiliary data, N numerics, R runtime and storage, X security. The exit code
of the command line follows from the family.
"""

from __future__ import annotations

from typing import ClassVar


class BperpError(Exception):
    """An expected fault: one line that names item, expected, found and remedy.

    Parameters
    ----------
    code : str
        Stable code such as ``D302``; the letter must belong to the class.
    cause : str
        One sentence without a full stop.
    where : str, optional
        Offending file, date, burst or option.
    expected, found : str, optional
        The rule and the value that broke it.
    remedy : str
        What the user can do about it.
    """

    letters: ClassVar[str] = "CDSOENRX"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        code: str,
        cause: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str,
    ) -> None:
        if code[:1] not in self.letters:
            raise ValueError(f"code must start with one of {self.letters!r}, instead got {code!r}")
        self.code, self.cause, self.where = code, cause, where
        self.expected, self.found, self.remedy = expected, found, remedy
        super().__init__(code, cause, where, expected, found, remedy)

    def __str__(self) -> str:
        parts = [f"{self.code} {self.where + ': ' if self.where else ''}{self.cause}"]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.found is not None:
            parts.append(f"found {self.found}")
        return " ".join(("; ".join([*parts, f"fix: {self.remedy}"])).split())

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel from Dask workers to the client; keyword arguments need help to survive.
        arguments = (type(self), self.code, self.cause, self.where, self.expected, self.found)
        return (_rebuild, (*arguments, self.remedy))

    def as_dict(self) -> dict[str, str | int | None]:
        """Return the fields for ``--json`` output and logs."""
        return {
            "code": self.code,
            "cause": self.cause,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


def _rebuild(
    kind: type[BperpError],
    code: str,
    cause: str,
    where: str | None,
    expected: str | None,
    found: str | None,
    remedy: str,
) -> BperpError:
    return kind(code, cause, where=where, expected=expected, found=found, remedy=remedy)


class ConfigurationError(BperpError):
    """C1xx: an option, key or argument given by the user."""

    letters, exit_code = "C", 2


class ProductError(BperpError):
    """D2xx and D3xx: structure, annotation or pixels of a product."""

    letters, exit_code = "D", 3


class StackError(BperpError):
    """S4xx: products that do not form a stack."""

    letters, exit_code = "S", 3


class OrbitError(BperpError):
    """O5xx: orbit files, state vectors, time systems."""

    letters, exit_code = "O", 3


class ElevationError(BperpError):
    """E6xx: elevation models and other auxiliary data."""

    letters, exit_code = "E", 3


class NumericsError(BperpError):
    """N7xx: the data do not determine the result that was asked for."""

    letters, exit_code = "N", 3


class StorageError(BperpError):
    """R8xx: storage, memory, processes."""

    letters, exit_code = "R", 4


class NetworkError(BperpError):
    """R81x: remote services and object stores."""

    letters, exit_code = "R", 5


class SecurityError(BperpError):
    """X9xx: refused for safety."""

    letters, exit_code = "X", 6
