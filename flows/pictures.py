"""Pictures of every step, as PNG files for the report and the README.

Arrays in, one file out. Radar images keep the shape that they have on the ground, maps the aspect
of their latitude; every colour bar names its unit, velocities also their sign.
"""

from bperp.flows.picture_charts import picture_alignment, picture_seams, picture_series
from bperp.flows.picture_maps import GriddedMap, picture_velocity_map, picture_velocity_truth
from bperp.flows.picture_radar import (
    picture_amplitude,
    picture_geometry,
    picture_scatterers,
)
from bperp.flows.picture_sheet import picture_interferograms
from bperp.flows.picture_style import RadarGrid

__all__ = [
    "GriddedMap",
    "RadarGrid",
    "picture_alignment",
    "picture_amplitude",
    "picture_geometry",
    "picture_interferograms",
    "picture_scatterers",
    "picture_seams",
    "picture_series",
    "picture_velocity_map",
    "picture_velocity_truth",
]
