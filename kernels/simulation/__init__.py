"""Simulator of Sentinel-1 TOPS acquisitions: arrays only, files are written by the stores.

It derives geometry and carrier on its own (see ``orbit`` and ``signal``) and must never import the
processor's orbit, geometry, carrier or resampling kernels: shared sign errors would cancel.
"""

from bperp.kernels.simulation.noise import Decorrelation, coherence_matrix
from bperp.kernels.simulation.phases import PhaseStack, PhaseStackOptions, simulate_phases

__all__ = [
    "Decorrelation",
    "PhaseStack",
    "PhaseStackOptions",
    "coherence_matrix",
    "simulate_phases",
]
