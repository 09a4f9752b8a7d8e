"""Orbit files of the POD service: read one, or choose the one of an acquisition."""

from bperp.stores.orbit_reader import OrbitFile, parse_orbit, read_orbit_file
from bperp.stores.orbit_selection import OrbitCandidate, OrbitPolicy, list_orbits, select_orbit

__all__ = [
    "OrbitCandidate",
    "OrbitFile",
    "OrbitPolicy",
    "list_orbits",
    "parse_orbit",
    "read_orbit_file",
    "select_orbit",
]
