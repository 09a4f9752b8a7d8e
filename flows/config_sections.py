"""What sections of the configuration are made of, and those that belong to no single step."""

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
    MemorySize,
    PathText,
    StackDate,
    as_tuple,
    fault,
    parse_memory,
)

__all__ = [
    "ComputeOptions",
    "DateOptions",
    "ElevationOptions",
    "ExportOptions",
    "OrbitOptions",
]

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
