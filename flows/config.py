"""Configuration of a stack: every option with its default, unit and range.

The models are the single source: the commented file of ``bperp init``, the checks, the error
messages and the content hashes are all generated from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Tag, ValidationError, model_validator

from bperp.flows import yaml_io, yaml_writer
from bperp.flows.config_errors import configuration_fault
from bperp.flows.config_sections import (
    AUTO_OR_GIVEN,
    GIVEN,
    Auto,
    ComputeOptions,
    DateOptions,
    ElevationOptions,
    ExportOptions,
    ListAsTuple,
    Options,
    OrbitOptions,
    option,
    section,
)
from bperp.flows.config_steps import (
    AlignmentOptions,
    AmplitudeOptions,
    CoregisterOptions,
    FilterOptions,
    GeocodeOptions,
    GeometryOptions,
    InterferogramOptions,
    MisregistrationOptions,
    PublishOptions,
    ScattererOptions,
    TimeseriesOptions,
    TimingOptions,
)
from bperp.flows.config_types import (
    AreaOfInterest,
    BoundingBox,
    PathText,
    ReferenceDate,
    SourceText,
    StackName,
    fault,
    refuse_secrets,
)
from bperp.stores.errors import ConfigurationError

__all__ = [
    "STEPS",
    "BoundingBox",
    "StackConfig",
    "Step",
    "commented_yaml",
    "differences",
    "load_config",
    "write_config",
]

STEPS = (
    "ingest",
    "geometry",
    "misregistration",
    "alignment",
    "coregister",
    "seams",
    "interferogram",
    "filter",
    "geocode",
    "amplitude",
    "scatterers",
    "timeseries",
    "publish",
    "export",
)
Step = Literal[
    "ingest",
    "geometry",
    "misregistration",
    "alignment",
    "coregister",
    "seams",
    "interferogram",
    "filter",
    "geocode",
    "amplitude",
    "scatterers",
    "timeseries",
    "publish",
    "export",
]

Swath = Literal["IW1", "IW2", "IW3", "EW1", "EW2", "EW3", "EW4", "EW5", "SM"]


class StackConfig(Options):
    """All options of a stack."""

    name: StackName = option(
        "stack", "Short name used in titles and file names.", allowed="letters, digits, . _ -"
    )
    root: PathText = option(
        ..., "Folder or object store (s3://bucket/prefix) of all products.", allowed="a path or URL"
    )
    slc: SourceText = option(
        ...,
        "Sentinel-1 SLC products: zip files, SAFE folders, patterns or URLs.",
        allowed="list of paths, patterns or URLs",
    )
    orbits: OrbitOptions = section(OrbitOptions(), "Orbit files.")
    dem: ElevationOptions = section(..., "Elevation model.")
    polarization: Literal["VV", "VH", "HH", "HV"] = option(
        "VV", "Polarization to process.", allowed="VV, VH, HH or HV"
    )
    swaths: Auto | Annotated[tuple[Swath, ...], ListAsTuple, Tag(GIVEN)] = option(
        "auto",
        "Sub-swaths to process; auto: all that the area of interest touches.",
        allowed="auto or a list of IW1, IW2, IW3, ...",
        unit="",
        discriminator=AUTO_OR_GIVEN,
    )
    aoi: AreaOfInterest | None = option(
        None,
        "Area of interest [lon_min, lat_min, lon_max, lat_max]; bursts outside are left out; "
        "lon_min > lon_max crosses the antimeridian; null: all bursts.",
        allowed="four numbers or null",
        unit="degree",
    )
    aoi_subset: Literal["bursts", "pixels"] = option(
        "bursts",
        "bursts: whole bursts that the area of interest touches; pixels: only the part of them "
        "that covers it.",
        allowed="bursts or pixels",
    )
    reference_date: ReferenceDate = option(
        "auto",
        "Date whose geometry all others are brought to; auto: the one that keeps most coherence "
        "with the others, and the same in later runs of this root.",
        allowed="auto or a date",
    )
    dates: DateOptions = section(DateOptions(), "Choice of acquisitions.")
    on_bad_date: Literal["stop", "skip"] = option(
        "stop",
        "A date that cannot be used: stop, or leave it out with a note (never the reference date).",
        allowed="stop or skip",
    )
    geometry: GeometryOptions = section(
        GeometryOptions(), "Step geometry: where each reference pixel is."
    )
    timing: TimingOptions = section(
        TimingOptions(), "Corrections of times and ranges, for geometry and alignment."
    )
    misregistration: MisregistrationOptions = section(
        MisregistrationOptions(), "Step misregistration: shifts measured on the images."
    )
    alignment: AlignmentOptions = section(
        AlignmentOptions(), "Step alignment: offsets of each date."
    )
    coregister: CoregisterOptions = section(
        CoregisterOptions(), "Step coregister: resampling to the reference geometry."
    )
    interferogram: InterferogramOptions = section(
        InterferogramOptions(), "Step interferogram: phase and coherence of pairs."
    )
    filter: FilterOptions = section(FilterOptions(), "Step filter: smoothed interferograms.")
    geocode: GeocodeOptions = section(
        GeocodeOptions(), "Step geocode: interferograms on a map grid."
    )
    amplitude: AmplitudeOptions = section(
        AmplitudeOptions(), "Step amplitude: dispersion and candidates."
    )
    scatterers: ScattererOptions = section(
        ScattererOptions(), "Step scatterers: phase noise and selection."
    )
    timeseries: TimeseriesOptions = section(
        TimeseriesOptions(), "Step timeseries: displacement and velocity."
    )
    publish: PublishOptions = section(
        PublishOptions(), "Step publish: displacement on a map for everybody."
    )
    export: ExportOptions = section(ExportOptions(), "Step export: files for users.")
    compute: ComputeOptions = section(ComputeOptions(), "Workers and memory.")

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, values: Any) -> Any:
        """Take a section whose options were all deleted as the defaults."""
        if not isinstance(values, Mapping):
            return values
        sections = {n for n, info in cls.model_fields.items() if yaml_writer.section_model(info)}
        return {n: {} if n in sections and v is None else v for n, v in values.items()}

    @model_validator(mode="after")
    def _root_can_be_written(self) -> Self:
        if self.root.startswith(("http://", "https://")):
            fault("C104", "root is on a web server, which cannot be written to", "use s3:// there")
        cluster = self.compute.cluster
        if cluster.kind == "kubernetes" and "://" not in self.root:
            shared = Path(cluster.kubernetes.volume_path)
            if not cluster.kubernetes.volume_claim or not Path(self.root).is_relative_to(shared):
                fault(
                    "C102",
                    "root is a folder that the pods do not see",
                    "use s3://, or a folder below volume_path of a volume_claim",
                )
        return self

    @model_validator(mode="after")
    def _reference_is_used(self) -> Self:
        chosen = self.reference_date
        if chosen != "auto" and chosen in self.dates.exclude:
            fault("C102", "reference_date is in dates.exclude", "choose another reference date")
        if chosen != "auto" and self.dates.include and chosen not in self.dates.include:
            fault("C102", "reference_date is not in dates.include", "add it to dates.include")
        return self

    @classmethod
    def from_values(
        cls,
        values: Mapping[str, Any],
        *,
        folder: str | Path | None = None,
        source: str = "configuration",
        lines: Mapping[yaml_io.OptionPath, int] | None = None,
    ) -> StackConfig:
        """Validate nested values as read from YAML or JSON.

        Parameters
        ----------
        values : mapping
            Nested options; lists may stand for tuples.
        folder : path, optional
            Folder that relative paths refer to; without it paths stay as they are.
        source : str
            File name for messages.
        lines : mapping, optional
            Line numbers by path.

        Raises
        ------
        ConfigurationError, StackError, SecurityError
            The gravest fault, all others counted: C101 to C104, S412, X904, X907.
        """
        refuse_secrets(values, source)
        context = None if folder is None else {"folder": str(folder)}
        try:
            return cls.model_validate(dict(values), context=context)
        except ValidationError as error:
            raise configuration_fault(error, cls, source=source, lines=lines) from None

    def as_values(self) -> dict[str, Any]:
        """Return nested dictionaries and lists, ready for JSON and ``from_values``."""
        values: dict[str, Any] = self.model_dump(mode="json")
        return values

    def step_options(self, step: str) -> dict[str, Any]:
        """Return the options that the bytes written by one step depend on, for content hashes.

        Parameters
        ----------
        step : str
            One of ``STEPS``.

        Returns
        -------
        dict
            JSON values by option name: the section of the step, with ``dem`` added to the steps
            that need heights, ``timing`` to those that locate pixels, and the candidate
            threshold to scatterers.

        Notes
        -----
        What selects inputs (``slc``, ``dates``, ``aoi``, orbit files, ``root``) is left out: it
        shows in the tasks and their inputs, so that an added date leaves all others valid. What
        a step inherits from earlier steps comes with their receipts.
        """
        if step not in STEPS:
            raise ValueError(f"step must be one of {STEPS}, instead got {step!r}")
        values = self.as_values()
        options: dict[str, Any] = dict(values.get(step, {}))
        if step in ("geometry", "geocode"):
            options.update(values["geometry"] | values["dem"])
        if step in ("geometry", "misregistration", "alignment", "geocode"):
            options["timing"] = values["timing"]
        if step == "scatterers":
            options.update(values["amplitude"])
        return options

    def step_options_json(self, step: str) -> str:
        """Return ``step_options`` as canonical JSON text."""
        return json.dumps(self.step_options(step), sort_keys=True, separators=(",", ":"))


def load_config(path: str | Path) -> StackConfig:
    """Read and check a configuration file; relative paths refer to its folder.

    Raises
    ------
    ConfigurationError
        C101 unknown option, C102 type, unit or range, C103 coordinates, C104 paths, C107 YAML.
    StackError
        S412 empty area of interest.
    SecurityError
        X904 unsafe name, X905 YAML objects or bombs, X907 secrets in the file.
    """
    document = yaml_io.read_yaml(Path(path))
    folder = Path(path).resolve().parent
    return StackConfig.from_values(
        document.values, folder=folder, source=document.source, lines=document.lines
    )


def commented_yaml(values: Mapping[str, Any]) -> str:
    """Return a complete file with every option explained; ``values`` may be partial."""
    header = (
        "# bperp stack configuration. Every option is listed with its default; delete what you do\n"
        "# not change. Relative paths refer to the folder of this file.\n\n"
    )
    return header + yaml_writer.commented_yaml(StackConfig, values)


def write_config(
    config: StackConfig | Mapping[str, Any], path: str | Path, *, overwrite: bool = False
) -> None:
    """Write a commented configuration file.

    Raises
    ------
    ConfigurationError
        C111 if the file exists and ``overwrite`` is False; C104 if it cannot be written.
    """
    values = config.as_values() if isinstance(config, StackConfig) else config
    text = commented_yaml(values)
    try:
        with Path(path).open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise ConfigurationError(
            "C111",
            "the file exists already",
            where=str(path),
            remedy="choose another name or allow overwriting (--force)",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            "C104",
            "the configuration file cannot be written",
            where=str(path),
            found=error.strerror or type(error).__name__,
            remedy="check the folder and its permissions",
        ) from error


def differences(before: StackConfig, after: StackConfig) -> dict[str, tuple[Any, Any]]:
    """Return the options that differ, by dotted name, as ``(before, after)``."""
    first, second = _flatten(before.as_values()), _flatten(after.as_values())
    names = dict.fromkeys([*first, *second])
    return {
        name: (first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name)
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
