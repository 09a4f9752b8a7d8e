"""What sections of the configuration are made of, and those that belong to no single step."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from bperp.flows.cluster_tls import unsafe_address
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
    "ClusterOptions",
    "ComputeOptions",
    "DateOptions",
    "ElevationOptions",
    "ExportOptions",
    "KubernetesOptions",
    "OrbitOptions",
    "SlurmOptions",
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


# What ends up in the lines of a job script must not be able to leave its place there.
_SCRIPT_TEXT = re.compile(r"[A-Za-z0-9._/${}:=,+@%-]+")
_DIRECTIVE = re.compile(r"-[A-Za-z0-9._/${}:=,+@%*\[\]()&| -]*")
_WALLTIME = re.compile(r"(?:\d{1,3}-)?\d{1,3}:[0-5]\d:[0-5]\d")
_CLUSTER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


def _matching(pattern: re.Pattern[str], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            fault(
                "X904",
                "the text holds characters that are unsafe where it is used",
                f"write {rule}",
            )
        return text

    return AfterValidator(check)


ScriptText = Annotated[str, _matching(_SCRIPT_TEXT, "a name or path without blanks")]
Directive = Annotated[str, _matching(_DIRECTIVE, "an option such as --constraint=skylake")]
ClusterName = Annotated[str, _matching(_CLUSTER_NAME, "lower-case letters, digits, . and -")]
ImageName = Annotated[str, _matching(_IMAGE, "an image such as registry/bperp:1.0")]


def _check_walltime(text: str) -> str:
    if not _WALLTIME.fullmatch(text):
        fault("C102", "not a time", "write hours:minutes:seconds, e.g. 12:00:00")
    return text


def _empty_as_defaults(value: Any) -> Any:
    return {} if value is None else value


EmptyAsDefaults = BeforeValidator(_empty_as_defaults)


class SlurmOptions(Options):
    """Jobs in which SLURM runs the workers."""

    queue: ScriptText | None = option(
        None, "Partition of the jobs; null: the default one.", allowed="a name or null"
    )
    account: ScriptText | None = option(
        None, "Account that the jobs are charged to; null: the default one.", allowed="name or null"
    )
    walltime: Annotated[str, AfterValidator(_check_walltime)] = option(
        "12:00:00",
        "Longest time of a job; a job that has ended is replaced by a new one.",
        allowed="[days-]hours:minutes:seconds",
    )
    workers_per_job: int = option(
        1, "Workers in one job, all on one node.", unit="process", ge=1, le=1024
    )
    interface: ScriptText | None = option(
        None,
        "Network interface that reaches the compute nodes, such as ib0; null: that of the default "
        "route.",
        allowed="a name or null",
    )
    shared_directory: PathText | None = option(
        None,
        "Folder that this machine and all nodes see, for the certificates of a run; null: the home "
        "folder.",
        allowed="a folder without blanks, or null",
    )
    local_directory: ScriptText | None = option(
        None,
        "Scratch folder of the nodes for the workers, such as $SCRATCH; null: that of the system.",
        allowed="a folder or null",
    )
    log_directory: PathText | None = option(
        None,
        "Folder for what the jobs print; null: it is thrown away.",
        allowed="a folder without blanks, or null",
    )
    job_extra: Annotated[tuple[Directive, ...], ListAsTuple] = option(
        (), "Further options of sbatch, such as --constraint=skylake.", allowed="list of options"
    )


class KubernetesOptions(Options):
    """Pods in which the Dask operator runs scheduler and workers."""

    namespace: ClusterName = option(
        "default", "Namespace of the pods.", allowed="a name of Kubernetes"
    )
    image: ImageName | None = option(
        None, "Container image with this version of bperp.", allowed="an image or null"
    )
    certificates: ClusterName | None = option(
        None,
        "Name of the Secret with ca.crt, tls.crt and tls.key for scheduler and workers.",
        allowed="a name of Kubernetes or null",
    )
    environment: ClusterName | None = option(
        None,
        "Name of a Secret whose entries become environment variables of the workers, e.g. for "
        "object stores.",
        allowed="a name of Kubernetes or null",
    )
    service_account: ClusterName | None = option(
        None,
        "Service account of the pods; null: none is mounted.",
        allowed="a name of Kubernetes or null",
    )
    volume_claim: ClusterName | None = option(
        None,
        "Claim of a volume that all pods see, mounted at volume_path.",
        allowed="a name of Kubernetes or null",
    )
    volume_path: ScriptText = option(
        "/data", "Where the volume of volume_claim is mounted.", allowed="an absolute path"
    )


class ClusterOptions(Options):
    """Which Dask workers are used; results do not depend on it."""

    kind: Literal["local", "address", "slurm", "kubernetes"] = option(
        "local",
        "local: on this machine; address: a cluster that runs already; slurm: in jobs; kubernetes: "
        "in pods of the Dask operator.",
        allowed="local, address, slurm or kubernetes",
    )
    address: str | None = option(
        None,
        "Scheduler of kind address; only on this machine without TLS.",
        allowed="tls://host:port, tcp://127.0.0.1:port or null",
    )
    tls_ca: PathText | None = option(
        None, "Certificate of the authority that all others must be signed by.", allowed="PEM file"
    )
    tls_certificate: PathText | None = option(
        None, "Certificate that this side shows.", allowed="PEM file"
    )
    tls_key: PathText | None = option(
        None, "Private key of that certificate.", allowed="PEM file that only you can read"
    )
    patience_s: Auto | Annotated[int, Field(ge=1, le=604800), Tag(GIVEN)] = option(
        "auto",
        "How long to go on without any worker; auto: a minute, for slurm a day (the queue), for "
        "kubernetes ten minutes.",
        allowed="auto or 1 to 604800",
        unit="second",
        discriminator=AUTO_OR_GIVEN,
    )
    slurm: Annotated[SlurmOptions, EmptyAsDefaults] = section(
        SlurmOptions(), "Kind slurm: jobs in which the workers run."
    )
    kubernetes: Annotated[KubernetesOptions, EmptyAsDefaults] = section(
        KubernetesOptions(), "Kind kubernetes: pods in which the cluster runs."
    )

    @property
    def tls_paths(self) -> tuple[str | None, str | None, str | None]:
        """Authority, certificate and key."""
        return self.tls_ca, self.tls_certificate, self.tls_key

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [path is not None for path in self.tls_paths]
        if any(given) and not all(given):
            fault("C102", "TLS takes three files", "give tls_ca, tls_certificate and tls_key")
        if self.kind == "local" and any(given):
            fault("C102", "the local cluster takes no TLS files", "remove tls_*, or choose a kind")
        if (self.address is None) == (self.kind == "address"):
            rule = "give kind: address together with the address of the scheduler"
            fault("C102", "cluster.kind and cluster.address do not fit together", rule)
        if self.address is not None:
            _check_address(self.address, has_certificates=all(given))
        settings = self.kubernetes
        if self.kind == "kubernetes" and not (
            all(given) and settings.image and settings.certificates
        ):
            fault(
                "C102",
                "kind kubernetes lacks its image or its certificates",
                "give kubernetes.image, kubernetes.certificates, tls_ca, tls_certificate, tls_key",
            )
        return self


def _check_address(address: str, *, has_certificates: bool) -> None:
    reason = unsafe_address(address, has_certificates=has_certificates)
    if reason:
        fault("X906", reason, "give tls:// and the files tls_ca, tls_certificate and tls_key")
    if has_certificates and not address.startswith("tls://"):
        fault("C102", "TLS files are given for an address without TLS", "write tls:// there")


class ComputeOptions(Options):
    """Where and with how many workers the tasks run; results do not depend on it."""

    engine: Literal["local", "serial", "prefect"] = option(
        "local",
        "local: Dask workers; serial: in this process; prefect: Dask workers, as a Prefect flow.",
        allowed="local, serial or prefect",
    )
    workers: Auto | Annotated[int, Field(ge=1, le=1024), Tag(GIVEN)] = option(
        "auto",
        "Worker processes of one thread; auto: from processors and memory of this machine, or all "
        "that cluster.address has.",
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
    cluster: Annotated[ClusterOptions, EmptyAsDefaults] = section(
        ClusterOptions(), "Where the Dask workers are."
    )

    @property
    def memory_per_worker_bytes(self) -> int:
        """Memory limit of one worker in bytes."""
        return parse_memory(self.memory_per_worker)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        kind = self.cluster.kind
        if self.engine == "serial" and kind != "local":
            fault("C102", "engine serial uses no cluster", "choose engine local, or kind local")
        if self.workers == "auto" and kind in ("slurm", "kubernetes"):
            rule = f"give compute.workers: kind {kind} cannot know how many you want"
            fault("C102", "the number of workers is missing", rule)
        return self
