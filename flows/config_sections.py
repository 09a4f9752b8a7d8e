"""Sections of the configuration: one model per step, each option with default, unit and range."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from bperp.flows.config_types import (
    FolderName,
    LatitudeDeg,
    LongitudeDeg,
    MemorySize,
    PathText,
    StackDate,
    as_tuple,
    fault,
    parse_memory,
)

__all__ = [
    "AlignmentOptions",
    "AmplitudeOptions",
    "ComputeOptions",
    "CoregisterOptions",
    "DateOptions",
    "ElevationOptions",
    "ExportOptions",
    "GeometryOptions",
    "InterferogramOptions",
    "OrbitOptions",
    "ReferenceArea",
    "ScattererOptions",
    "TimeseriesOptions",
]

_Looks = Annotated[int, Field(ge=1, le=200)]
ListAsTuple = BeforeValidator(as_tuple)
AUTO, GIVEN = "<auto>", "<given>"


def auto_or_given(value: Any) -> str:
    """Tell which branch of an option validates a value: the word auto, or anything else."""
    return AUTO if isinstance(value, str) else GIVEN


Auto = Annotated[Literal["auto"], Tag(AUTO)]
AUTO_OR_GIVEN = Discriminator(auto_or_given)


def option(
    default: Any,
    about: str,
    *,
    allowed: str = "",
    unit: str = "",
    discriminator: Any = None,
    **limits: float,
) -> Any:
    """Declare an option; ``limits`` (ge, gt, le) are checked and make ``allowed`` unless given."""
    low = f"{limits['ge']:g} to " if "ge" in limits else f"above {limits.get('gt', 0):g}, at most "
    extra: dict[str, Any] = {"unit": unit, "allowed": allowed or f"{low}{limits['le']:g}"}
    return Field(
        default,
        description=about,
        json_schema_extra=extra,
        discriminator=discriminator,
        **cast("Any", limits),
    )


def section(default: Any, about: str) -> Any:
    """Declare a section of options."""
    return Field(default, description=about)


class Options(BaseModel):
    """Base of all sections: strict, frozen, nothing unknown."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )


class OrbitOptions(Options):
    """Orbit files and which of them may be used."""

    folders: Annotated[tuple[PathText, ...], ListAsTuple] = option(
        (), "Folders with Sentinel-1 orbit files (*.EOF).", allowed="list of folders"
    )
    policy: Literal["best", "precise", "restituted", "allow_predicted"] = option(
        "best",
        "best: POEORB, else RESORB with a flag; precise: POEORB only; restituted: RESORB only; "
        "allow_predicted: like best, else the vectors of the annotation with a flag.",
        allowed="best, precise, restituted or allow_predicted",
    )


class ElevationOptions(Options):
    """Elevation model and its vertical datum."""

    path: PathText = option(
        ..., "GeoTIFF covering all bursts with a margin.", allowed="a file or URL"
    )
    vertical_datum: Literal["auto", "ellipsoid", "egm96", "egm2008"] = option(
        "auto",
        "Surface that the heights refer to; auto: as stated in the file, refused when it does not "
        "say.",
        allowed="auto, ellipsoid, egm96 or egm2008",
    )
    geoid: PathText | None = option(
        None,
        "Geoid grid (GeoTIFF or GTX) for EGM heights; null: the grid of the PROJ installation.",
        allowed="a file or null",
    )


class DateOptions(Options):
    """Which acquisitions belong to the stack."""

    include: Annotated[tuple[StackDate, ...], ListAsTuple] = option(
        (), "Only these dates; empty: all that are found.", allowed="list of dates"
    )
    exclude: Annotated[tuple[StackDate, ...], ListAsTuple] = option(
        (), "Never these dates.", allowed="list of dates"
    )
    first: StackDate | None = option(None, "Earliest date.", allowed="a date or null")
    last: StackDate | None = option(None, "Latest date.", allowed="a date or null")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.first and self.last and self.first > self.last:
            fault("C102", "dates.first is later than dates.last", "swap the two dates")
        both = sorted(set(self.include) & set(self.exclude))
        if both:
            fault("C102", f"{both[0]} is both included and excluded", "remove it from one list")
        return self

    def selects(self, date: str) -> bool:
        """Tell whether an acquisition of this ISO date belongs to the stack."""
        listed = not self.include or date in self.include
        early, late = self.first or date, self.last or date
        return listed and date not in self.exclude and early <= date <= late


class GeometryOptions(Options):
    """Coordinates of the reference pixels."""

    missing_elevation: Literal["stop", "sea"] = option(
        "stop",
        "Where the elevation model has no data: stop, or assume sea level (0 m above the geoid).",
        allowed="stop or sea",
    )


class AlignmentOptions(Options):
    """Offsets of each date from orbits and elevation, corrected from the burst overlaps."""

    esd: bool = option(
        True,
        "Estimate the azimuth shift of each date from the burst overlaps (enhanced spectral "
        "diversity).",
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


class ExportOptions(Options):
    """Files made from the finished products."""

    formats: Annotated[tuple[Literal["stamps", "csv"], ...], ListAsTuple] = option(
        ("csv",), "Formats that the step 'export' writes.", allowed="list of stamps, csv"
    )
    folder: FolderName = option(
        "export",
        "Folder below the root that receives them.",
        allowed="letters, digits, . _ - and /",
    )


class ComputeOptions(Options):
    """Where and with how many workers the tasks run; results do not depend on it."""

    engine: Literal["local", "serial", "prefect"] = option(
        "local",
        "local: Dask workers on this machine; serial: in this process; prefect: as a Prefect flow.",
        allowed="local, serial or prefect",
    )
    workers: Auto | Annotated[int, Field(ge=1, le=1024), Tag(GIVEN)] = option(
        "auto",
        "Worker processes of one thread; auto: from processors and memory.",
        allowed="auto or 1 to 1024",
        unit="process",
        discriminator=AUTO_OR_GIVEN,
    )
    memory_per_worker: MemorySize = option(
        "1.5GB",
        "Memory limit of one worker.",
        allowed="256MB to 1TB",
        unit="byte with MB, GB or GiB",
    )

    @property
    def memory_per_worker_bytes(self) -> int:
        """Memory limit of one worker in bytes."""
        return parse_memory(self.memory_per_worker)
