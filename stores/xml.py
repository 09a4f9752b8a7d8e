"""Hardened XML: no DOCTYPE, no entities, no network, a size limit, and typed getters.

Sentinel-1 annotation, manifests and orbit files are plain UTF-8 without document type. Whatever
needs more than that is refused before a parser sees it, because what a parser does with entities
depends on the version of libxml2 that happens to be installed.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

import numpy as np
from lxml import etree
from lxml.etree import _Element as Element
from numpy.typing import NDArray

from bperp.stores.errors import ProductError, SecurityError

__all__ = [
    "LIMIT_BYTES",
    "Element",
    "boolean",
    "child",
    "file_of",
    "integer",
    "integers",
    "number",
    "numbers",
    "optional_text",
    "parse_time_ns",
    "parse_xml",
    "text",
    "time_ns",
]

LIMIT_BYTES = 64 * 2**20
"""Real annotation has 1 MB, a precise orbit file 5 MB."""

_DOCTYPE = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._:-]*)")
_ENCODINGS = frozenset({b"UTF-8", b"US-ASCII", b"ASCII", b"ISO-8859-1"})
# float() takes 1_000, nan and digits of other scripts; none of them is a number of the format.
_NUMERIC = frozenset("0123456789+-.eE \t\r\n")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?"
    r"(?:Z|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def parse_xml(data: bytes, where: str, *, limit_bytes: int = LIMIT_BYTES) -> Element:
    """Parse an XML document that may come from anybody.

    Parameters
    ----------
    data : bytes
        The whole document, UTF-8, ASCII or ISO-8859-1.
    where : str
        Name of the file for error messages; elements remember it.
    limit_bytes : int, default 64 MiB
        Larger documents are refused.

    Returns
    -------
    Element
        The root, without comments and processing instructions.

    Raises
    ------
    SecurityError
        X901 for a DOCTYPE or ENTITY declaration, X902 above the size limit.
    ProductError
        D301 when malformed, with the line number.
    """
    if len(data) > limit_bytes:
        raise SecurityError(
            "X902",
            "XML document exceeds the size limit",
            where=where,
            expected=f"at most {limit_bytes} bytes",
            found=f"{len(data)} bytes",
            remedy="fetch the file again from the archive",
        )
    if _DOCTYPE.search(data):
        raise SecurityError(
            "X901",
            "XML document carries a DOCTYPE or ENTITY declaration",
            where=where,
            expected="plain XML, as the agency writes it",
            remedy="fetch the file again from the archive",
        )
    _check_encoding(data, where)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=False,
    )
    try:
        # The name goes in as base URL so that the getters can say which file is at fault.
        return etree.fromstring(data, parser, base_url=where)
    except (etree.XMLSyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ProductError(
            "D301",
            "malformed XML" + (f" at line {line}" if line is not None else ""),
            where=where,
            found=str(error)[:120],
            remedy="fetch the file again; it is probably truncated",
        ) from error


def _check_encoding(data: bytes, where: str) -> None:
    declared = _ENCODING.search(data[:300])
    # UTF-16 or EBCDIC would hide a DOCTYPE from the search above.
    if b"\0" in data or (declared and declared.group(1).upper() not in _ENCODINGS):
        raise ProductError(
            "D301",
            "malformed XML: not UTF-8 text",
            where=where,
            expected="UTF-8, ASCII or ISO-8859-1",
            found="NUL bytes" if b"\0" in data else repr(declared and declared.group(1)),
            remedy="fetch the file again from the archive",
        )


def file_of(element: Element) -> str:
    """Return the name that was given to ``parse_xml``."""
    return element.getroottree().docinfo.URL or "XML document"


def _path_of(element: Element, path: str) -> str:
    return f"{element.getroottree().getpath(element)}/{path}".rstrip("/.")


def _missing(element: Element, path: str, cause: str) -> ProductError:
    return ProductError(
        "D302",
        f"{cause} {_path_of(element, path)}",
        where=file_of(element),
        expected="a value",
        remedy="fetch the product again, or leave this date out",
    )


def _malformed(element: Element, path: str, expected: str, found: str) -> ProductError:
    return ProductError(
        "D301",
        f"malformed value of {_path_of(element, path)}",
        where=file_of(element),
        expected=expected,
        found=repr(found[:60]),
        remedy="fetch the product again, or leave this date out",
    )


def child(element: Element, path: str) -> Element:
    """Return the first element at an ElementPath; D302 when there is none."""
    found = element.find(path)
    if found is None:
        raise _missing(element, path, "no element")
    return found


def optional_text(element: Element, path: str) -> str | None:
    """Return the stripped text at an ElementPath, or None when absent, empty or ``NULL``."""
    found = element if path == "." else element.find(path)
    value = (found.text or "").strip() if found is not None else ""
    return None if value in {"", "NULL"} else value


def text(element: Element, path: str) -> str:
    """Return the stripped text at an ElementPath.

    Raises
    ------
    ProductError
        D302 when the element is absent, empty or ``NULL``: a default would be a silent error.
    """
    value = optional_text(element, path)
    if value is None:
        target = element if path == "." else element.find(path)
        raise _missing(element, path, "no element" if target is None else "empty element")
    return value


def integer(element: Element, path: str) -> int:
    """Return the integer at an ElementPath (D302 absent, D301 malformed)."""
    value = text(element, path)
    if not re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
        raise _malformed(element, path, "an integer", value)
    return int(value)


def number(element: Element, path: str) -> float:
    """Return the finite float at an ElementPath (D302 absent, D301 malformed)."""
    value = text(element, path)
    parsed = _floats([value]) if _NUMERIC.issuperset(value) else None
    if parsed is None:
        raise _malformed(element, path, "a finite number with a decimal point", value)
    return float(parsed[0])


def boolean(element: Element, path: str) -> bool:
    """Return the truth value at an ElementPath (D302 absent, D301 malformed)."""
    value = text(element, path).lower()
    if value not in {"true", "false", "1", "0"}:
        raise _malformed(element, path, "true or false", value)
    return value in {"true", "1"}


def numbers(element: Element, path: str) -> NDArray[np.float64]:
    """Return the blank-separated floats at an ElementPath, shape (n,).

    The ``count`` attribute, where there is one, must tell the truth (D301).
    """
    value = text(element, path)
    parts = value.split()
    parsed = _floats(parts) if _NUMERIC.issuperset(value) else None
    if parsed is None:
        raise _malformed(element, path, "finite numbers with a decimal point", value)
    _check_count(element, path, len(parts))
    return parsed


def integers(element: Element, path: str, *, check_count: bool = True) -> NDArray[np.int64]:
    """Return the blank-separated integers at an ElementPath, shape (n,)."""
    value = text(element, path)
    try:
        if not _NUMERIC.issuperset(value):
            raise ValueError(value)
        parsed = np.array([int(part) for part in value.split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise _malformed(element, path, "integers", value) from error
    if check_count:
        _check_count(element, path, parsed.size)
    return parsed


def _floats(parts: list[str]) -> NDArray[np.float64] | None:
    try:
        parsed = np.array([float(part) for part in parts], dtype=np.float64)
    except ValueError:
        return None
    return parsed if np.isfinite(parsed).all() else None


def _check_count(element: Element, path: str, found: int) -> None:
    declared = (element if path == "." else child(element, path)).get("count")
    if declared is not None and declared.strip() != str(found):
        raise _malformed(element, path, f"{declared} values", f"{found} values")


def time_ns(element: Element, path: str) -> int:
    """Return the UTC time at an ElementPath in ns since 1970 (D302 absent, D301 malformed)."""
    value = text(element, path)
    parsed = parse_time_ns(value)
    if parsed is None:
        raise _malformed(element, path, "a UTC time YYYY-MM-DDThh:mm:ss.ffffff", value)
    return parsed


def parse_time_ns(value: str) -> int | None:
    """Return an ISO 8601 time in integer ns since 1970, or None when it is none.

    Parameters
    ----------
    value : str
        ``YYYY-MM-DDThh:mm:ss[.fffffffff][Z|+hh:mm]``; without suffix the time is UTC. A prefix
        such as ``UTC=`` of orbit files is skipped. Seconds may be 60 (a leap second, counted as
        the first second of the next minute, as POSIX does).

    Returns
    -------
    int or None
        Nanoseconds; integers because float64 seconds since 1970 resolve 2.4e-7 s only.
    """
    match = _TIME.fullmatch(value.partition("=")[2] if "=" in value else value)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, zone_hour, zone_minute = match.groups()
    days = _days(int(year), int(month), int(day))
    if days is None or int(hour) > 23 or int(minute) > 59 or int(second) > 60:
        return None
    zone = 0 if sign is None else (int(zone_hour) * 60 + int(zone_minute)) * (1 - 2 * (sign == "-"))
    seconds = ((days * 24 + int(hour)) * 60 + int(minute) - zone) * 60 + int(second)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))


@lru_cache(maxsize=64)
def _days(year: int, month: int, day: int) -> int | None:
    if not 1900 <= year <= 2200:  # int64 ns reach from 1677 to 2262
        return None
    try:
        return date(year, month, day).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
