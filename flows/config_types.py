"""Types of configuration values: what is accepted as a date, path, size, name or coordinate.

Each validator raises a coded fault (``fault``), which ``config_errors`` turns into the one-line
error of the command line. Paths are resolved only when the caller gives the folder of the file in
the validation context, so values built in Python stay as they are.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from bperp.flows.masking import SECRET_NAME
from bperp.stores.errors import SecurityError

__all__ = [
    "AreaOfInterest",
    "BoundingBox",
    "FolderName",
    "LatitudeDeg",
    "LongitudeDeg",
    "MemorySize",
    "PathText",
    "ReferenceDate",
    "SourceText",
    "StackDate",
    "StackName",
    "as_tuple",
    "fault",
    "is_url",
    "is_windows_path",
    "parse_angle",
    "parse_memory",
    "refuse_secrets",
]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_SCHEMES = ("s3", "https", "file", "memory")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?i?B|[kMGT])", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def refuse_secrets(values: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration that has a key such as ``password``, at any depth.

    Raises
    ------
    SecurityError
        X907; the value is not repeated.
    """
    waiting: list[tuple[str, Any]] = [("", values)]
    while waiting:
        prefix, value = waiting.pop()
        if isinstance(value, Mapping):
            for key, item in value.items():
                _refuse_secret(f"{prefix}{key}", str(key), source)
                waiting.append((f"{prefix}{key}.", item))
        elif isinstance(value, list | tuple):
            waiting.extend((prefix, item) for item in value)


def _refuse_secret(path: str, key: str, source: str) -> None:
    if SECRET_NAME.search(key):
        raise SecurityError(
            "X907",
            "credentials do not belong in a configuration file",
            where=f"{source}: {path}",
            remedy="remove it (change the secret if the file was shared) and use environment "
            "variables, a keyring or a private netrc file",
        )


def fault(code: str, message: str, remedy: str = "", expected: str = "") -> NoReturn:
    """Raise a validation fault that keeps its code, rule and remedy through pydantic."""
    context = {"code": code, "remedy": remedy, "expected": expected}
    raise PydanticCustomError("bperp", "{message}", {**context, "message": message})


def is_url(text: str) -> bool:
    """Tell whether a location has a scheme such as ``s3://``."""
    return _URL.fullmatch(text) is not None


def is_windows_path(text: str) -> bool:
    """Tell whether a path has a drive letter or starts with two backslashes."""
    return _WINDOWS.match(text) is not None


def _expand(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in os.environ:
            fault(
                "C104",
                f"environment variable {name!r} is not set",
                f"set {name} or write the path out",
            )
        return os.environ[name]

    return os.path.expanduser(_VARIABLE.sub(replace, text))  # noqa: PTH111 (text, not a Path: globs)


def _check_location(text: str) -> None:
    if not text.strip():
        fault("C104", "the path is empty", "give a path")
    if any(ord(letter) < 32 for letter in text):
        fault("C104", "the path holds a control character", "write the path on one line")
    if is_windows_path(text) and os.name != "nt":
        fault(
            "C104",
            "a Windows path cannot be reached from this system",
            "give the path as it is mounted here, with forward slashes",
        )


def _resolve_location(text: str, info: ValidationInfo) -> str:
    _check_location(text)
    match = _URL.fullmatch(text)
    if match is not None:
        return _check_url(text, match.group(1).lower(), match.group(2))
    folder = (info.context or {}).get("folder")
    if folder is None:
        return text
    expanded = _expand(text)
    if is_url(expanded):
        return _resolve_location(expanded, info)
    return os.path.normpath(os.path.join(folder, expanded))  # noqa: PTH118 (globs are text)


def _check_url(text: str, scheme: str, rest: str) -> str:
    if scheme not in _SCHEMES:
        fault(
            "C104",
            f"locations of type {scheme}:// are not supported",
            "use a path, s3:// or https://",
        )
    if "@" in rest.split("/", 1)[0]:
        fault(
            "X907",
            "the location holds a user name or password",
            "keep credentials in the environment, a keyring or a private netrc file",
        )
    if not rest.strip("/"):
        fault("C104", "the location names no bucket or path", "write e.g. s3://bucket/prefix")
    if scheme == "file":
        return "/" + rest.lstrip("/")
    return text.rstrip("/")


def _parse_date(value: Any) -> Any:
    """Accept ISO dates, ``yyyymmdd`` (also as a number) and ``datetime.date``; return ISO text."""
    if isinstance(value, datetime.datetime):
        value = value.date()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    match = _DATE.fullmatch(str(value))
    if match is None:
        fault("C102", "not a date", "write the date as 2020-01-31")
    try:
        return datetime.date(*map(int, match.groups())).isoformat()
    except ValueError:
        fault("C102", "the calendar has no such day", "write the date as 2020-01-31")


def _check_name(text: str) -> str:
    if not _NAME.fullmatch(text) or text.strip(".") == "":
        fault(
            "X904",
            "the name holds characters that are unsafe in paths",
            "use letters, digits, . _ -",
        )
    return text


def _check_folder(text: str) -> str:
    for part in text.split("/"):
        if not _NAME.fullmatch(part) or part.strip(".") == "":
            fault(
                "X904",
                "the folder would leave the project root or holds unsafe characters",
                "give a folder below the root; letters, digits, . _ - and /",
            )
    return text


def parse_memory(text: str) -> int:
    """Return bytes of a size such as ``1.5GB``, ``800 MiB`` or ``16G``.

    Raises
    ------
    ValueError
        If the text is not a number with a unit.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"size must be a number with MB, GB or GiB, instead got {text!r}")
    unit = match.group(2).upper().rstrip("B")
    base = 1024 if unit.endswith("I") else 1000
    factor: int = base ** _POWERS[unit.rstrip("I")]
    return round(float(match.group(1)) * factor)


def _check_memory(text: str) -> str:
    try:
        size = parse_memory(text)
    except ValueError:
        fault("C102", "not a memory size", "write e.g. 1.5GB", "a number with MB, GB, MiB or GiB")
    if not 256_000_000 <= size <= 1_000_000_000_000:
        fault("C102", "memory size out of range", "write e.g. 1.5GB", "256MB to 1TB")
    return text


_ANGLE = re.compile(
    r"\s*([-+]?)(\d+(?:[.,]\d+)?)\s*(?:[°d:\s]\s*(\d+(?:[.,]\d+)?)?)?\s*['′m:]?\s*"
    r"(?:(\d+(?:[.,]\d+)?)\s*(?:\"|″|''|s)?)?\s*([NSEW]?)\s*",
    re.IGNORECASE,
)


def parse_angle(text: str) -> float | None:
    """Guess decimal degrees from text such as ``12°30'15"E``, ``12:30`` or ``12,5``.

    Returns
    -------
    float or None
        Degrees, negative to the south and west; None if the text makes no sense.
    """
    match = _ANGLE.fullmatch(text[:40])
    if match is None:
        return None
    sign, degrees, minutes, seconds, side = match.groups()
    parts = [float((part or "0").replace(",", ".")) for part in (degrees, minutes, seconds)]
    if max(parts[1:]) >= 60:
        return None
    value = parts[0] + parts[1] / 60 + parts[2] / 3600
    is_negative = sign == "-" or side.upper() in ("S", "W")
    return round(-value if is_negative else value, 6)


def _number_or_guess(value: Any) -> Any:
    if isinstance(value, str):
        guess = parse_angle(value)
        hint = "" if guess is None else f"; did you mean {guess:g}?"
        fault("C103", f"coordinates are numbers in decimal degrees{hint}", "write decimal degrees")
    return value


def _limit(value: float, limit: float, name: str) -> float:
    if not -limit <= value <= limit:
        fault(
            "C103",
            f"{name} out of range",
            "give longitude before latitude",
            f"-{limit:g} to {limit:g}",
        )
    return value


class BoundingBox(NamedTuple):
    """Area of interest in degrees; ``lon_min > lon_max`` crosses the antimeridian."""

    lon_min: float
    lat_min: float
    lon_max: float
    lat_max: float

    @property
    def crosses_antimeridian(self) -> bool:
        """True for an area such as 179 to -179 degrees."""
        return self.lon_min > self.lon_max


def _box(value: tuple[float, float, float, float]) -> BoundingBox:
    west, south, east, north = box = BoundingBox(*value)
    order = "[lon_min, lat_min, lon_max, lat_max]"
    if max(abs(south), abs(north)) > 90:
        fits = max(abs(west), abs(east)) <= 90 and max(abs(south), abs(north)) <= 180
        guess = f"; did you mean [{south:g}, {west:g}, {north:g}, {east:g}]?" if fits else ""
        fault("C103", f"latitude beyond 90 degrees{guess}", f"write {order}", order)
    if max(abs(west), abs(east)) > 180:
        fault("C103", "longitude beyond 180 degrees", f"write {order} with -180 to 180", order)
    if south > north:
        guess = f"[{west:g}, {north:g}, {east:g}, {south:g}]"
        fault("C103", f"lat_min exceeds lat_max; did you mean {guess}?", f"write {order}", order)
    if 0 < west - east <= 180:
        guess = f"[{east:g}, {south:g}, {west:g}, {north:g}]"
        fault("C103", f"lon_min exceeds lon_max; did you mean {guess}?", f"write {order}", order)
    if west == east or south == north:
        fault("S412", "the area of interest has no extent", f"write {order}", "a positive extent")
    return box


def as_tuple(value: Any) -> Any:
    """Let strict tuple fields accept the lists that YAML has."""
    return tuple(value) if isinstance(value, list) else value


def _coordinate(value: float, info: ValidationInfo) -> float:
    return _limit(value, 90.0 if info.field_name == "lat" else 180.0, str(info.field_name))


def _check_sources(values: Sequence[str]) -> Sequence[str]:
    if not values:
        fault("C102", "the list is empty", "name at least one file, pattern or URL", "one or more")
    return values


PathText = Annotated[str, AfterValidator(_resolve_location)]
SourceText = Annotated[
    tuple[PathText, ...], AfterValidator(_check_sources), BeforeValidator(as_tuple)
]
StackDate = Annotated[str, BeforeValidator(_parse_date)]
ReferenceDate = Annotated[
    str, BeforeValidator(lambda value: value if value == "auto" else _parse_date(value))
]
StackName = Annotated[str, AfterValidator(_check_name)]
FolderName = Annotated[str, AfterValidator(_check_folder)]
MemorySize = Annotated[str, AfterValidator(_check_memory)]
LongitudeDeg = Annotated[float, AfterValidator(_coordinate), BeforeValidator(_number_or_guess)]
LatitudeDeg = LongitudeDeg
_Degrees = Annotated[float, BeforeValidator(_number_or_guess)]
if TYPE_CHECKING:
    AreaOfInterest = BoundingBox
else:  # validated as four plain numbers, then named
    AreaOfInterest = Annotated[
        tuple[_Degrees, _Degrees, _Degrees, _Degrees],
        AfterValidator(_box),
        BeforeValidator(as_tuple),
    ]
