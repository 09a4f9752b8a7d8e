"""Command line: ``bperp VERB``.

Only names and options live here; each verb imports what it needs when it runs, so that help is
fast. Exit codes: 0 ok, 1 internal error, 2 user input, 3 data, 4 resources, 5 network, 6 security
refusal, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

if TYPE_CHECKING:
    from bperp.flows.console import Console, Outcome

__all__ = ["app", "main"]

app = typer.Typer(
    name="bperp",
    help="Sentinel-1 SLC bursts in, ground motion out.",
    epilog="Exit codes: 0 ok, 1 internal error, 2 input, 3 data, 4 resources, 5 network, "
    "6 security refusal, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
ConfigFile = Annotated[Path, typer.Argument(help="Configuration file, e.g. stack.yaml.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"bperp {version('bperp')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Sentinel-1 SLC bursts in, ground motion out."""


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="New folder for products, orbits, DEM and truth.")],
    preset: Annotated[str, typer.Option(help="tiny, small or psi.")] = "tiny",
    seed: Seed = 1,
    template: Annotated[
        Path | None, typer.Option(help="Real SAFE folder whose annotation is taken over.")
    ] = None,
    as_zip: Annotated[bool, typer.Option("--zip", help="Pack each product as a zip.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a synthetic SAFE stack with known truth."""
    from bperp.flows import cli_verbs

    _perform(
        "simulate",
        lambda console: cli_verbs.simulate(
            console, out, preset=preset, seed=seed, template=template, as_zip=as_zip
        ),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def init(
    more_slc: Annotated[
        list[str] | None, typer.Argument(metavar="[SLC]...", help="Further products.")
    ] = None,
    slc: Annotated[
        list[str] | None, typer.Option(help="Products or quoted pattern; may be repeated.")
    ] = None,
    orbits: Annotated[list[str] | None, typer.Option(help="Folder of orbit files.")] = None,
    dem: Annotated[str | None, typer.Option(help="Elevation model.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder or URL of all products.")] = None,
    project_conf: Annotated[
        Path | None, typer.Option(help="snap2stamps project.conf to take over.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write; - for stdout.")
    ] = Path("stack.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a configuration file in which every option is explained."""
    from bperp.flows import cli_init

    request = cli_init.InitRequest(
        slc=(*(slc or ()), *(more_slc or ())),
        orbits=tuple(orbits or ()),
        dem=dem,
        root=root,
        project_conf=project_conf,
        output=output,
        force=force,
    )
    _perform("init", lambda console: cli_init.init(console, request), as_json=as_json, debug=debug)


@app.command()
def check(config: ConfigFile, as_json: Json = False, debug: Debug = False) -> None:
    """Find in seconds what would stop a run."""
    from bperp.flows import cli_verbs

    _perform(
        "check", lambda console: cli_verbs.check(console, config), as_json=as_json, debug=debug
    )


@app.command()
def cost(
    config: Annotated[
        Path | None, typer.Argument(help="Configuration file; default a frame of full bursts.")
    ] = None,
    preset: Annotated[str, typer.Option(help="frame, country or europe.")] = "frame",
    frames: Annotated[float | None, typer.Option(min=0, help="Number of such frames.")] = None,
    dates: Annotated[int | None, typer.Option(min=2, help="Dates of the frame.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A price, or another number of the model."
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate objects, requests, bytes, hours, memory and money before anything runs."""
    from bperp.flows import cli_verbs
    from bperp.flows.cost_report import CostRequest

    request = CostRequest(config, preset, frames, dates, workers, tuple(settings or ()))
    _perform("cost", lambda console: cli_verbs.cost(request), as_json=as_json, debug=debug)


@app.command()
def run(
    config: ConfigFile,
    first: Annotated[str | None, typer.Option("--from", help="First step.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last step.")] = None,
    only: Annotated[str | None, typer.Option("--only", help="One step.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    engine: Annotated[
        str | None, typer.Option(help="local, serial or prefect; default as configured.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the steps; finished work is recognised and kept.

    Steps: ingest, geometry, misregistration, alignment, coregister, seams, interferogram, filter,
    geocode, amplitude, scatterers, timeseries, publish, export.
    """
    from bperp.flows import cli_verbs

    request = cli_verbs.RunRequest(first, last, only, dry_run, engine, workers)
    _perform(
        "run",
        lambda console: cli_verbs.run(console, config, request),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def add(
    config: ConfigFile,
    products: Annotated[list[str], typer.Argument(metavar="SLC...", help="New products.")],
    last: Annotated[
        str | None,
        typer.Option("--to", help="Last step; default the last one that works date by date."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    engine: Annotated[
        str | None, typer.Option(help="local, serial or prefect; default as configured.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add products to a stack and compute only what their dates need."""
    from bperp.flows import cli_verbs

    request = cli_verbs.RunRequest(None, last, None, dry_run, engine, workers)
    _perform(
        "add",
        lambda console: cli_verbs.add(console, config, products, request),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def status(
    stack: Annotated[str, typer.Argument(help="Configuration file or root.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is finished, by step and date."""
    from bperp.flows import cli_verbs

    _perform(
        "status", lambda console: cli_verbs.status(console, stack), as_json=as_json, debug=debug
    )


@app.command()
def verify(
    stack: Annotated[str, typer.Argument(metavar="ROOT", help="Root or configuration file.")],
    readers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read; default one per processor.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read everything again and compare it with its receipts; change nothing.

    Exit code 0 only if all products are finished and unharmed, else 4.
    """
    from bperp.flows import cli_verbs

    _perform(
        "verify",
        lambda console: cli_verbs.verify(console, stack, readers),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def repair(
    stack: Annotated[str, typer.Argument(metavar="ROOT", help="Root or configuration file.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Verify, and compute again exactly what is damaged."""
    from bperp.flows import cli_verbs

    _perform(
        "repair",
        lambda console: cli_verbs.repair(console, stack, workers),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def export(
    stack: Annotated[str, typer.Argument(metavar="ROOT", help="Root or configuration file.")],
    file_format: Annotated[str, typer.Option("--format", help="stamps or csv.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default below the root.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write finished products in a format of other programs."""
    from bperp.flows import cli_verbs

    _perform(
        "export",
        lambda console: cli_verbs.export(console, stack, file_format, out),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="New folder.")] = Path("bperp-demo"),
    preset: Annotated[str, typer.Option(help="tiny, small or psi.")] = "small",
    seed: Seed = 1,
    root: Annotated[
        str | None,
        typer.Option(help="Folder or URL (s3://bucket/prefix) of all products; default OUT/root."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Simulate a stack, process it, compare with the truth."""
    from bperp.flows import cli_verbs

    _perform(
        "demo",
        lambda console: cli_verbs.demo(console, out, preset=preset, seed=seed, root=root),
        as_json=as_json,
        debug=debug,
    )


@app.command()
def doctor(
    root: Annotated[str | None, typer.Option(help="Folder or URL that runs will write to.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Examine versions, memory, disk, ports and compiler."""
    from bperp.flows import cli_verbs

    _perform(
        "doctor", lambda console: cli_verbs.doctor(console, root), as_json=as_json, debug=debug
    )


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        code = _usage_error(error)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code)


def _terminate(number: int, frame: object) -> NoReturn:
    """Leave like Ctrl-C, so that the store is resumable after a termination signal."""
    raise KeyboardInterrupt


def _usage_error(error: TyperException) -> int:
    if "--json" in sys.argv:
        from bperp.flows.console import Console
        from bperp.stores.errors import ConfigurationError

        remedy = "see 'bperp --help' and 'bperp VERB --help'"
        fault = ConfigurationError("C100", error.format_message(), remedy=remedy)
        return Console("", as_json=True).fault(fault)
    show = getattr(error, "show", None)
    if show is None:
        print(f"Error: {error.format_message()}", file=sys.stderr)
    else:
        show()
    return error.exit_code


def _perform(
    verb: str, work: Callable[[Console], Outcome], *, as_json: bool, debug: bool
) -> NoReturn:
    """Do the work of a verb and turn whatever happens into output and exit code."""
    from bperp.flows.console import Console, storage_fault
    from bperp.stores.errors import BperpError

    console = Console(verb, as_json=as_json, debug=debug)
    try:
        code = console.finish(work(console))
    except BperpError as error:
        code = console.fault(error)
    except KeyboardInterrupt:
        code = console.interrupted()
    except BrokenPipeError:
        code = _broken_pipe()
    except (OSError, MemoryError) as error:
        known = storage_fault(error)
        code = console.internal(error) if known is None else console.fault(known)
    except Exception as error:
        code = console.internal(error)
    raise typer.Exit(code)


def _broken_pipe() -> int:
    """Stop quietly when the reader of our output has left, as in ``bperp status | head``."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
