"""Choose the orbit file of an acquisition by mission and validity, never by date string."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import fsspec
import numpy as np
from numpy.typing import NDArray

from bperp.stores.annotation import StateVectors
from bperp.stores.byte_source import StorageOptions, display_name
from bperp.stores.errors import BperpError, OrbitError
from bperp.stores.orbit_reader import OrbitFile, check_states, read_orbit_file
from bperp.stores.xml import parse_time_ns

__all__ = ["OrbitCandidate", "list_orbits", "select_orbit"]

OrbitPolicy = Literal["best", "precise", "restituted", "allow_predicted"]
_NAME = re.compile(
    r"(?P<mission>S1[A-Z])_OPER_(?P<kind>AUX_(?:POE|RES|PRE)ORB)_OPOD_"
    r"(?P<created>\d{8}T\d{6})_V(?P<start>\d{8}T\d{6})_(?P<stop>\d{8}T\d{6})\.EOF(\.zip)?",
    re.IGNORECASE | re.ASCII,
)
_KINDS: dict[str, tuple[str, ...]] = {
    "best": ("AUX_POEORB", "AUX_RESORB"),
    "precise": ("AUX_POEORB",),
    "restituted": ("AUX_RESORB",),
    "allow_predicted": ("AUX_POEORB", "AUX_RESORB", "AUX_PREORB"),
}
# Vectors beyond the margin help interpolation at the ends.
_REACH_S = 200.0
_TOUCH_NS = 10 * 10**9


@dataclass(frozen=True)
class OrbitCandidate:
    """An orbit file by its name; times are UTC ns since 1970."""

    url: str
    kind: str
    mission: str
    validity_start_ns: int
    validity_stop_ns: int
    created_ns: int


@dataclass(frozen=True)
class _Request:
    """What the orbit has to cover (margin included), and where to look for vectors."""

    mission: str
    start_ns: int
    stop_ns: int
    policy: OrbitPolicy
    reach_ns: int
    storage_options: StorageOptions


def list_orbits(
    places: str | Sequence[str], storage_options: StorageOptions = None
) -> tuple[OrbitCandidate, ...]:
    """List the orbit files in folders (with their subfolders), or given one by one.

    Parameters
    ----------
    places : str or sequence of str
        Folders or files, local paths or fsspec URLs.
    storage_options : mapping, optional
        For the fsspec file systems.

    Returns
    -------
    tuple of OrbitCandidate
        Sorted by name. Files named otherwise are opened to see what they are when they are given
        one by one, and left alone in folders.
    """
    found: dict[str, OrbitCandidate] = {}
    for place in [places] if isinstance(places, str) else places:
        filesystem, path = fsspec.url_to_fs(place, **(storage_options or {}))
        if filesystem.isdir(path):
            names = filesystem.find(path)
            candidates = (_from_name(filesystem.unstrip_protocol(name)) for name in names)
        else:
            candidates = (c for c in [_from_name(place) or _from_header(place, storage_options)])
        found.update({item.url: item for item in candidates if item is not None})
    return tuple(sorted(found.values(), key=lambda item: display_name(item.url)))


def _from_name(url: str) -> OrbitCandidate | None:
    match = _NAME.fullmatch(posixpath.basename(url.split("?", 1)[0]))
    if match is None:
        return None
    start, stop, created = (_compact_ns(match[key]) for key in ("start", "stop", "created"))
    if start is None or stop is None or created is None:
        return None
    return OrbitCandidate(
        url, match["kind"].upper(), match["mission"].upper(), start, stop, created
    )


def _compact_ns(value: str) -> int | None:
    return parse_time_ns(
        f"{value[:4]}-{value[4:6]}-{value[6:8]}T{value[9:11]}:{value[11:13]}:{value[13:]}"
    )


def _from_header(url: str, storage_options: StorageOptions) -> OrbitCandidate:
    orbit = read_orbit_file(url, storage_options=storage_options)
    return OrbitCandidate(
        url,
        orbit.kind,
        orbit.mission,
        orbit.validity_start_ns,
        orbit.validity_stop_ns,
        orbit.created_ns,
    )


def select_orbit(
    candidates: str | Sequence[str] | Sequence[OrbitCandidate],
    mission: str,
    start_ns: int,
    stop_ns: int,
    *,
    margin_s: float = 60.0,
    policy: OrbitPolicy = "best",
    annotation: StateVectors | None = None,
    storage_options: StorageOptions = None,
) -> OrbitFile:
    """Choose and read the orbit of an acquisition.

    Parameters
    ----------
    candidates : str, sequence of str, or sequence of OrbitCandidate
        Folders or files, or what ``list_orbits`` returned.
    mission : str
        ``S1A`` ...
    start_ns, stop_ns : int
        First and last line, UTC ns since 1970.
    margin_s : float, default 60
        Vectors must reach this far beyond both ends, s.
    policy : {"best", "precise", "restituted", "allow_predicted"}
        Best: precise, else restituted. With ``allow_predicted`` the annotation's own vectors
        serve when there is nothing better.
    annotation : StateVectors, optional
        For ``allow_predicted``.
    storage_options : mapping, optional
        For the fsspec file systems.

    Returns
    -------
    OrbitFile
        Its ``kind`` says what it is; two restituted files are joined when one does not reach.

    Raises
    ------
    OrbitError
        O501 nothing of that kind, O502 nothing that covers the acquisition, O503 only files of
        another mission, and the errors of ``read_orbit_file`` when they spoilt all candidates.
    """
    listed = _listed(candidates, storage_options)
    margin_ns = round(margin_s * 1e9)
    request = _Request(
        mission,
        start_ns - margin_ns,
        stop_ns + margin_ns,
        policy,
        max(round(_REACH_S * 1e9) - margin_ns, 0),
        storage_options,
    )
    failures: list[BperpError] = []
    for kind in _KINDS[policy]:
        own = [c for c in listed if c.kind == kind and c.mission == mission]
        orbit = _read_first(_covering(own, request), request, failures)
        if orbit is None and kind == "AUX_RESORB":
            orbit = _read_joined(own, request, failures)
        if orbit is not None:
            return _flagged(orbit)
    if policy == "allow_predicted" and annotation is not None:
        return _from_annotation(annotation, request)
    raise _explain(listed, request, failures)


def _listed(
    candidates: str | Sequence[str] | Sequence[OrbitCandidate], storage_options: StorageOptions
) -> list[OrbitCandidate]:
    if isinstance(candidates, str):
        return list(list_orbits(candidates, storage_options))
    ready = [item for item in candidates if isinstance(item, OrbitCandidate)]
    places = [item for item in candidates if isinstance(item, str)]
    return [*ready, *list_orbits(places, storage_options)]


def _covers(item: OrbitCandidate | OrbitFile, request: _Request) -> bool:
    return item.validity_start_ns <= request.start_ns and item.validity_stop_ns >= request.stop_ns


def _covering(candidates: Iterable[OrbitCandidate], request: _Request) -> list[OrbitCandidate]:
    """Return the candidates that cover the request, the best first."""

    def rank(item: OrbitCandidate) -> tuple[int, int, str]:
        before = request.start_ns - item.validity_start_ns
        after = item.validity_stop_ns - request.stop_ns
        # The middle of a file is better than its ends; of two versions the newer is better.
        return -min(before, after), -item.created_ns, item.url

    return sorted((item for item in candidates if _covers(item, request)), key=rank)


def _read_first(
    candidates: list[OrbitCandidate], request: _Request, failures: list[BperpError]
) -> OrbitFile | None:
    for candidate in candidates:
        try:
            orbit = _read(candidate, request)
            _check_matches(orbit, request)
            _check_reaches(orbit, request)
        except OrbitError as error:
            failures.append(error)
            continue
        return orbit
    return None


def _read(candidate: OrbitCandidate, request: _Request) -> OrbitFile:
    start, stop = request.start_ns - request.reach_ns, request.stop_ns + request.reach_ns
    return read_orbit_file(candidate.url, start, stop, request.storage_options)


def _check_matches(orbit: OrbitFile, request: _Request) -> None:
    """Believe the header, not the name."""
    if orbit.mission != request.mission:
        raise OrbitError(
            "O503",
            "orbit file belongs to another mission",
            where=orbit.label,
            expected=request.mission,
            found=orbit.mission,
            remedy="give the file its own name back, or fetch it again",
        )
    if not _covers(orbit, request):
        raise OrbitError(
            "O502",
            "orbit file does not cover the acquisition",
            where=orbit.label,
            expected=_interval(request.start_ns, request.stop_ns),
            found=_interval(orbit.validity_start_ns, orbit.validity_stop_ns),
            remedy="fetch the file that covers it",
        )


def _check_reaches(orbit: OrbitFile, request: _Request) -> None:
    first, last = int(orbit.time_ns[0]), int(orbit.time_ns[-1])
    step = int(np.median(np.diff(orbit.time_ns)))
    if first > request.start_ns + step or last < request.stop_ns - step:
        raise OrbitError(
            "O504",
            "state vectors end before the validity of the orbit file does",
            where=orbit.label,
            expected=_interval(request.start_ns, request.stop_ns),
            found=_interval(first, last),
            remedy="fetch the orbit file again",
        )


def _interval(start_ns: int, stop_ns: int) -> str:
    start, stop = (str(np.datetime64(t, "ns").astype("datetime64[s]")) for t in (start_ns, stop_ns))
    return f"{start} to {stop}"


def _read_joined(
    candidates: list[OrbitCandidate], request: _Request, failures: list[BperpError]
) -> OrbitFile | None:
    """Join two consecutive files that cover the request together."""
    for earlier in sorted(candidates, key=lambda c: (-c.validity_start_ns, -c.created_ns)):
        for later in sorted(candidates, key=lambda c: (c.validity_start_ns, -c.created_ns)):
            touches = later.validity_start_ns <= earlier.validity_stop_ns + _TOUCH_NS
            follows = later.validity_stop_ns > earlier.validity_stop_ns
            reaches = earlier.validity_start_ns <= request.start_ns < earlier.validity_stop_ns
            if not (touches and follows and reaches and later.validity_stop_ns >= request.stop_ns):
                continue
            try:
                joined = _join(_read(earlier, request), _read(later, request))
                _check_matches(joined, request)
                _check_reaches(joined, request)
            except OrbitError as error:
                failures.append(error)
                continue
            return joined
    return None


def _join(earlier: OrbitFile, later: OrbitFile) -> OrbitFile:
    if earlier.mission != later.mission:
        return later
    # The ends of a restituted orbit are its worst part: change in the middle of the overlap.
    change = (int(earlier.time_ns[-1]) + int(later.time_ns[0])) // 2
    head, tail = earlier.time_ns <= change, later.time_ns > change

    def both(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate((first[head], second[tail]))

    return replace(
        later,
        validity_start_ns=earlier.validity_start_ns,
        time_ns=np.concatenate((earlier.time_ns[head], later.time_ns[tail])),
        position_m=both(earlier.position_m, later.position_m),
        velocity_m_s=both(earlier.velocity_m_s, later.velocity_m_s),
        sources=(*earlier.sources, *later.sources),
        flags=(*dict.fromkeys((*earlier.flags, *later.flags)), "orbit-joined"),
    )


def _flagged(orbit: OrbitFile) -> OrbitFile:
    names = {"AUX_RESORB": "orbit-restituted", "AUX_PREORB": "orbit-predicted"}
    name = names.get(orbit.kind)
    return orbit if name is None else replace(orbit, flags=(*orbit.flags, name))


def _from_annotation(vectors: StateVectors, request: _Request) -> OrbitFile:
    where = "annotation"
    check_states(vectors.position_m, vectors.velocity_m_s, where)
    return OrbitFile(
        kind="ANNOTATION",
        mission=request.mission,
        validity_start_ns=int(vectors.time_ns[0]),
        validity_stop_ns=int(vectors.time_ns[-1]),
        created_ns=int(vectors.time_ns[-1]),
        time_ns=vectors.time_ns,
        position_m=vectors.position_m,
        velocity_m_s=vectors.velocity_m_s,
        sources=(where,),
        flags=("orbit-predicted",),
    )


def _explain(
    listed: list[OrbitCandidate], request: _Request, failures: list[BperpError]
) -> BperpError:
    if failures:
        return failures[0]
    wanted = " or ".join(kind.removeprefix("AUX_") for kind in _KINDS[request.policy])
    interval = _interval(request.start_ns, request.stop_ns)
    kinds = _KINDS[request.policy]
    others = [c for c in listed if c.mission != request.mission and _covers(c, request)]
    own = [c for c in listed if c.mission == request.mission and c.kind in kinds]
    expected = f"{wanted} of {request.mission} for {interval}"
    if own:
        near = min(own, key=lambda c: abs(c.validity_start_ns - request.start_ns))
        found = (
            f"{len(own)} files; nearest {_interval(near.validity_start_ns, near.validity_stop_ns)}"
        )
        code, cause = "O502", "no orbit file covers the acquisition with its margin"
    elif others:
        found = ", ".join(sorted({display_name(c.url) for c in others})[:2])
        code, cause = "O503", "only orbit files of another mission cover the acquisition"
    else:
        found = f"{len(listed)} orbit files of other kinds or missions" if listed else "none"
        code, cause = "O501", "no orbit file for this mission"
    return OrbitError(
        code,
        cause,
        where=f"orbits for {request.mission}",
        expected=expected,
        found=found,
        remedy="fetch the orbit file, or set orbits.policy to what is at hand",
    )
