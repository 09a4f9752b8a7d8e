"""Options of the steps of the chain, one model per step."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from bperp.flows.config_sections import (
    AUTO_OR_GIVEN,
    GIVEN,
    Auto,
    ListAsTuple,
    Options,
    option,
)
from bperp.flows.config_types import LatitudeDeg, LongitudeDeg, fault

__all__ = [
    "AlignmentOptions",
    "AmplitudeOptions",
    "CoregisterOptions",
    "FilterOptions",
    "GeocodeOptions",
    "GeometryOptions",
    "InterferogramOptions",
    "MisregistrationOptions",
    "PublishOptions",
    "ReferenceArea",
    "ScattererOptions",
    "TimeseriesOptions",
    "TimingOptions",
]

_Looks = Annotated[int, Field(ge=1, le=200)]


class GeometryOptions(Options):
    """Coordinates of the reference pixels."""

    missing_elevation: Literal["stop", "sea"] = option(
        "stop",
        "Where the elevation model has no data: stop, or assume sea level (0 m above the geoid).",
        allowed="stop or sea",
    )


class TimingOptions(Options):
    """Corrections of annotated times and ranges; off, the annotation is taken as it is."""

    bistatic: bool = option(
        False,
        "The satellite moves between transmission and reception; the products are corrected for "
        "the middle of the swath only.",
        allowed="true or false",
    )
    doppler_range: bool = option(
        False,
        "A Doppler shift moves a pixel in range, up to 0.4 m at the edges of a burst.",
        allowed="true or false",
    )
    fm_mismatch: bool = option(
        False,
        "Products are focused for a mean height; above and below it pixels move in azimuth.",
        allowed="true or false",
    )
    solid_tide: bool = option(
        False,
        "Solid earth tide (IERS 2010), up to 0.4 m; position only, the phase keeps it.",
        allowed="true or false",
    )


class MisregistrationOptions(Options):
    """Shifts between dates that orbits and time stamps leave, measured on the images."""

    esd: bool = option(
        True,
        "Measure azimuth shifts in the burst overlaps (enhanced spectral diversity).",
        allowed="true or false",
    )
    looks: Annotated[tuple[_Looks, _Looks], ListAsTuple] = option(
        (5, 15),
        "Looks (azimuth, range) of the overlap interferograms before they are multiplied.",
        allowed="two integers, 1 to 200",
        unit="pixel",
    )
    max_shift_lines: float = option(
        0.05,
        "A larger azimuth shift is beyond the ambiguity of the method and refused.",
        unit="line",
        gt=0,
        le=0.5,
    )
    neighbours: int = option(
        2,
        "Dates towards the reference date that each date is measured against, besides the "
        "reference date itself.",
        unit="date",
        ge=0,
        le=20,
    )
    range_correlation: bool = option(
        True,
        "Measure range shifts by cross-correlation.",
        allowed="true or false",
    )
    max_range_shift_samples: float = option(
        2.0,
        "A larger range shift is not searched for.",
        unit="sample",
        gt=0,
        le=16,
    )


class AlignmentOptions(Options):
    """Offsets of each date from orbits, elevation and the measured shifts."""

    azimuth_surface: Literal["report", "apply"] = option(
        "report",
        "A smooth azimuth shift over the scene (ionosphere) that the overlaps show: only report, "
        "or correct it as well.",
        allowed="report or apply",
    )


class CoregisterOptions(Options):
    """Resampling to the geometry of the reference date."""

    range_taps: Auto | Annotated[Literal[8, 12, 16], Tag(GIVEN)] = option(
        "auto",
        "Taps of the interpolation kernel in range; auto: from the bandwidth.",
        allowed="auto, 8, 12 or 16",
        unit="sample",
        discriminator=AUTO_OR_GIVEN,
    )


class InterferogramOptions(Options):
    """Multilooked interferograms and coherence."""

    looks: Annotated[tuple[_Looks, _Looks], ListAsTuple] = option(
        (4, 20),
        "Looks (azimuth, range); 4 x 20 gives about 60 m x 80 m on the ground in IW.",
        allowed="two integers, 1 to 200",
        unit="pixel",
    )
    network: Literal["single_reference", "nearest"] = option(
        "single_reference",
        "single_reference: every date with the reference date; nearest: every date with the next "
        "ones in time.",
        allowed="single_reference or nearest",
    )
    neighbours: int = option(
        3,
        "Following dates that each date is paired with in the network 'nearest'.",
        unit="date",
        ge=1,
        le=20,
    )
    burst_phase: Literal["report", "remove"] = option(
        "report",
        "Constant phase offsets between bursts (as between S1C and S1D), estimated where bursts "
        "overlap: only report, or remove them.",
        allowed="report or remove",
    )
    common_band: Literal["never", "auto", "always"] = option(
        "never",
        "Filter both images to the range band they share; auto: pairs whose bands differ by more "
        "than 5 percent.",
        allowed="never, auto or always",
    )


class FilterOptions(Options):
    """Adaptive filter of the interferograms (Goldstein)."""

    enabled: bool = option(
        False, "Write filtered interferograms besides the plain ones.", allowed="true or false"
    )
    strength: Literal["coherence"] | Annotated[float, Field(ge=0, le=1)] = option(
        "coherence",
        "Exponent of the spectrum; coherence: one minus the mean coherence of each patch.",
        allowed="coherence or 0 to 1",
        unit="1",
    )
    window: Literal[16, 32, 64] = option(
        32, "Edge of a patch.", allowed="16, 32 or 64", unit="multilooked pixel"
    )
    overlap: float = option(
        0.75, "Share of a patch that it has in common with the next.", allowed="0.5 or 0.75",
        unit="1", ge=0.5, le=0.75,
    )  # fmt: skip

    @model_validator(mode="after")
    def _known_overlap(self) -> Self:
        if self.overlap not in (0.5, 0.75):
            fault("C102", "filter.overlap must be 0.5 or 0.75", "choose one of the two")
        return self


class GeocodeOptions(Options):
    """Interferograms on a map grid, corrected for terrain."""

    enabled: bool = option(False, "Write the geocoded product.", allowed="true or false")
    crs: str = option(
        "auto",
        "Coordinate reference system as PROJ understands it (EPSG:32633); auto: the UTM zone of "
        "the scene, polar stereographic near the poles.",
        allowed="auto or a PROJ string",
    )
    spacing: Auto | Annotated[float, Field(gt=0, le=100_000), Tag(GIVEN)] = option(
        "auto",
        "Cell size; auto: that of the multilooked pixels.",
        allowed="auto or a number above 0",
        unit="unit of the reference system (metre or degree)",
        discriminator=AUTO_OR_GIVEN,
    )
    bounds: Auto | Annotated[tuple[float, float, float, float], ListAsTuple, Tag(GIVEN)] = option(
        "auto",
        "Edges [x_min, y_min, x_max, y_max]; auto: the whole scene.",
        allowed="auto or four numbers",
        unit="unit of the reference system",
        discriminator=AUTO_OR_GIVEN,
    )
    resampling: Literal["bilinear", "nearest"] = option(
        "bilinear",
        "Interpolation of phase (as a complex number) and coherence.",
        allowed="bilinear or nearest",
    )


class AmplitudeOptions(Options):
    """Choice of scatterer candidates."""

    max_amplitude_dispersion: float = option(
        0.4,
        "Pixels with a larger ratio of amplitude sigma to mean are no candidates.",
        unit="1",
        gt=0,
        le=1,
    )


class ScattererOptions(Options):
    """Phase noise of the candidates and choice of persistent scatterers (StaMPS steps 2 to 4)."""

    max_topo_error_m: float = option(
        20.0,
        "Largest elevation error that is searched for (max_topo_err).",
        unit="m",
        ge=1,
        le=200,
    )
    filter_grid_m: float = option(
        50.0,
        "Cell of the grid on which the phase is filtered (filter_grid_size).",
        unit="m",
        ge=10,
        le=1000,
    )
    low_pass_wavelength_m: float = option(
        800.0,
        "Cut-off wavelength of the low-pass part of the filter (clap_low_pass_wavelength).",
        unit="m",
        ge=100,
        le=100_000,
    )
    max_percent_random: float = option(
        20.0,
        "Share of selected scatterers that may be random, before weeding (percent_rand).",
        unit="percent",
        gt=0,
        le=100,
    )
    iterations: int = option(
        3,
        "Rounds of filtering and phase noise estimation at most (gamma_max_iterations).",
        ge=1,
        le=50,
    )
    min_phase_stability: float = option(
        0.7,
        "Smallest phase stability (gamma) of a selected scatterer, whatever max_percent_random "
        "allows.",
        unit="1",
        ge=0,
        le=1,
    )
    weed_neighbours: bool = option(
        True,
        "Keep only the best of adjacent candidates (weed_neighbours): resolution cells are larger "
        "than pixels.",
        allowed="true or false",
    )


class ReferenceArea(Options):
    """Circle whose mean displacement is zero."""

    lon: LongitudeDeg = option(..., "Longitude.", allowed="-180 to 180", unit="degree")
    lat: LatitudeDeg = option(..., "Latitude.", allowed="-90 to 90", unit="degree")
    radius_m: float = option(
        500.0, "Radius.", allowed="above 0, at most 100000", unit="m", gt=0, le=100_000
    )


class TimeseriesOptions(Options):
    """Unwrapping in space and time and inversion to displacement."""

    reference: Auto | Annotated[ReferenceArea, Tag(GIVEN)] = option(
        "auto",
        "Area of zero displacement: auto, or {lon: 12.5, lat: 41.9, radius_m: 500}.",
        allowed="auto or a mapping with lon, lat, radius_m",
        unit="",
        discriminator=AUTO_OR_GIVEN,
    )
    min_arc_coherence: float = option(
        0.7,
        "Arcs between scatterers of lower temporal coherence are dropped.",
        unit="1",
        ge=0,
        le=1,
    )
    max_arc_length_m: float = option(
        2000.0,
        "Longer arcs are dropped.",
        unit="m",
        ge=50,
        le=100_000,
    )
    max_arc_velocity_m_yr: float = option(
        0.05,
        "Largest difference of velocity along an arc that is searched for.",
        unit="m/yr",
        gt=0,
        le=1,
    )
    max_arc_dem_error_m: float = option(
        50.0,
        "Largest difference of elevation error along an arc that is searched for.",
        unit="m",
        gt=0,
        le=500,
    )


class PublishOptions(Options):
    """Displacement on a map, for readers without bperp."""

    enabled: bool = option(False, "Write the published cubes.", allowed="true or false")
    crs: str = option(
        "auto",
        "Coordinate reference system as PROJ understands it (EPSG:32633); auto: the UTM zone of "
        "the scene, polar stereographic near the poles.",
        allowed="auto or a PROJ string",
    )
    spacing: Auto | Annotated[float, Field(gt=0, le=100_000), Tag(GIVEN)] = option(
        "auto",
        "Cell size; auto: 100 m, or somewhat less in degrees.",
        allowed="auto or a number above 0",
        unit="unit of the reference system (metre or degree)",
        discriminator=AUTO_OR_GIVEN,
    )
    bounds: Auto | Annotated[tuple[float, float, float, float], ListAsTuple, Tag(GIVEN)] = option(
        "auto",
        "Edges [x_min, y_min, x_max, y_max]; auto: the whole scene.",
        allowed="auto or four numbers",
        unit="unit of the reference system",
        discriminator=AUTO_OR_GIVEN,
    )
