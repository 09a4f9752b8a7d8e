"""What the verbs do: load the configuration, call the worker function, show the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bperp.flows.console import Console, Outcome, StepCounter
from bperp.stores.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from bperp.flows.check import CheckReport
    from bperp.flows.cost_report import CostRequest

__all__ = [
    "RunRequest",
    "add",
    "check",
    "cost",
    "demo",
    "doctor",
    "export",
    "repair",
    "run",
    "simulate",
    "status",
    "verify",
]

ENGINES = ("local", "serial", "prefect")
FORMATS = ("stamps", "csv")
_LEVEL_ORDER = {"error": 0, "warning": 1, "ok": 2}
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """Arguments of ``bperp run``; None stands for what the configuration says."""

    first: str | None
    last: str | None
    only: str | None
    dry_run: bool
    engine: str | None
    workers: int | None


def simulate(
    console: Console, out: Path, *, preset: str, seed: int, template: Path | None, as_zip: bool
) -> Outcome:
    """Make a synthetic stack."""
    from bperp.flows.simulation import PRESETS, simulate_stack

    _require_choice("--preset", preset, tuple(PRESETS))
    _require_new_folder(out)
    options = dataclasses.replace(PRESETS[preset], seed=seed, template=template, archive=as_zip)
    made = simulate_stack(out, options, StepCounter(console.progress(), "simulate"))

    def text(console: Console) -> None:
        console.line(f"{len(made.products)} products with {len(made.burst_ids)} bursts in {out}")
        products = f"'{out}/safe/*.{'zip' if as_zip else 'SAFE'}'"
        console.line(
            f"next: bperp init --slc {products} --orbits {out}/orbits --dem {out}/dem.tif "
            f"--root {out}/root"
        )

    return Outcome(_as_mapping(made), text)


def check(console: Console, path: Path) -> Outcome:
    """Check a configuration and its data."""
    from bperp.flows.check import check_stack
    from bperp.flows.config import load_config

    report = check_stack(load_config(path))
    return Outcome(report.as_dict(), lambda c: _show_report(c, report), report.exit_code)


def cost(request: CostRequest) -> Outcome:
    """Estimate what a stack costs."""
    from bperp.flows.cost_report import PRESETS, answer_cost, show_cost

    _require_choice("--preset", request.preset, PRESETS)
    found = answer_cost(request)
    return Outcome(found.as_dict(), lambda console: show_cost(console, found))


def run(console: Console, path: Path, request: RunRequest) -> Outcome:
    """Run the steps of a stack."""
    from bperp.flows.config import load_config

    _check_steps(request)
    config = load_config(path)
    engine = config.compute.engine if request.engine is None else request.engine
    _require_choice("--engine", engine, ENGINES)
    workers = config.compute.workers if request.workers is None else request.workers
    from bperp.flows.run import run_stack

    summary = run_stack(
        config,
        first=request.first,
        last=request.last,
        only=request.only,
        dry_run=request.dry_run,
        engine=engine,
        workers=None if workers == "auto" else workers,
        progress=console.progress(),
    )
    payload = _as_mapping(summary)
    title = "nothing was done: dry run" if request.dry_run else f"results are in {config.root}"
    return Outcome(payload, lambda c: _show_fields(c, title, payload))


def add(console: Console, path: Path, products: list[str], request: RunRequest) -> Outcome:
    """Add products to a stack."""
    _check_steps(request)
    from bperp.flows.add import add_products
    from bperp.flows.config import load_config

    config = load_config(path)
    engine = config.compute.engine if request.engine is None else request.engine
    _require_choice("--engine", engine, ENGINES)
    workers = config.compute.workers if request.workers is None else request.workers
    summary = add_products(
        path,
        products,
        last=request.last,
        dry_run=request.dry_run,
        engine=engine,
        workers=None if workers == "auto" else workers,
        progress=console.progress(),
    )
    payload = _as_mapping(summary)
    dates = ", ".join(summary["added"]) or "no new date"
    title = f"nothing was done: dry run for {dates}" if request.dry_run else f"added {dates}"
    return Outcome(payload, lambda c: _show_fields(c, title, payload))


def status(console: Console, stack: str) -> Outcome:
    """Show the state of a stack."""
    from bperp.flows.run import stack_status

    root = _root_of(stack)
    payload = _as_mapping(stack_status(root))
    return Outcome(payload, lambda c: _show_fields(c, root, payload))


def verify(console: Console, stack: str, readers: int | None) -> Outcome:
    """Prove that a root is complete and unharmed."""
    from bperp.flows.soundness import verify_root

    payload = verify_root(_root_of(stack), readers=readers, progress=console.progress())

    def text(console: Console) -> None:
        _show_names(console, [f"{f['code']} {f['object']}: {f['found'] or f['cause']}"
                              for f in payload["faults"]])  # fmt: skip
        for name in ("unsettled", "unfinished", "partial", "strays"):
            _show_names(console, [f"{name}: {item}" for item in payload[name]])
        console.line(
            f"{payload['blocks']} blocks, {payload['bytes_read'] / 1e6:.1f} MB read in "
            f"{payload['seconds']:.1f} s; {len(payload['faults'])} objects damaged"
        )
        remedy = "bperp repair" if payload["faults"] else "bperp run"
        verdict = "complete and unharmed" if payload["sound"] else f"not sound; next: {remedy}"
        console.line(f"{payload['root']} is {verdict}")

    return Outcome(payload, text, 0 if payload["sound"] else StorageError.exit_code)


def repair(console: Console, stack: str, workers: int | None) -> Outcome:
    """Compute again what is damaged in a root."""
    from bperp.flows.repair import repair_root

    payload = repair_root(_root_of(stack), workers=workers, progress=console.progress())

    def text(console: Console) -> None:
        for name in ("damaged", "restored", "removed"):
            _show_names(console, [f"{name}: {item}" for item in payload[name]])
        for step, keys in payload["recomputed"].items():
            _show_names(console, [f"computed again: {step}/{key}" for key in keys])
        console.line(f"{payload['tasks_run']} tasks computed again in {payload['root']}")

    return Outcome(payload, text)


def export(console: Console, stack: str, file_format: str, out: Path | None) -> Outcome:
    """Export finished products."""
    _require_choice("--format", file_format, FORMATS)
    root = _root_of(stack)
    from bperp.flows.export import export_product

    payload = _as_mapping(export_product(root, file_format, out))
    return Outcome(payload, lambda c: _show_fields(c, f"exported {file_format}", payload))


def demo(console: Console, out: Path, *, preset: str, seed: int, root: str | None) -> Outcome:
    """Simulate, process and compare with the truth."""
    from bperp.flows.demo import run_demo

    payload = _as_mapping(run_demo(out, preset, seed, console.progress(), root=root))
    return Outcome(payload, lambda c: _show_fields(c, f"results are in {out}", payload))


def doctor(console: Console, root: str | None) -> Outcome:
    """Examine the installation."""
    from bperp.flows.doctor import examine

    diagnosis = examine(root)

    def text(console: Console) -> None:
        rows = [(s.level, s.name, s.found, s.expected) for s in diagnosis.symptoms]
        console.table("installation", ("level", "what", "found", "expected"), rows)
        for symptom in diagnosis.symptoms:
            if symptom.remedy:
                console.line(f"{symptom.level}: {symptom.name}: {symptom.remedy}")

    return Outcome(diagnosis.as_dict(), text, diagnosis.exit_code)


def _check_steps(request: RunRequest) -> None:
    from bperp.flows.config import STEPS

    if request.only and (request.first or request.last):
        raise _usage("--only", "cannot be combined with --from or --to", "use one of the two")
    given = {"--from": request.first, "--to": request.last, "--only": request.only}
    for name, step in given.items():
        if step is not None:
            _require_choice(name, step, STEPS)
    if request.first and request.last and STEPS.index(request.first) > STEPS.index(request.last):
        raise _usage("--from", f"{request.first} comes after {request.last}", "swap the two steps")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value in choices:
        return
    import difflib

    close = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.5)
    raise ConfigurationError(
        "C102",
        "no such choice",
        where=name,
        expected=f"one of {', '.join(choices)}",
        found=value,
        remedy=f"did you mean {close[0]!r}?" if close else "choose one of them",
    )


def _require_new_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            "C111",
            "the folder is not empty",
            where=str(folder),
            remedy="give a new folder: products of two stacks must not be mixed",
        )


def _usage(where: str, cause: str, remedy: str) -> ConfigurationError:
    return ConfigurationError("C102", cause, where=where, remedy=remedy)


def _root_of(stack: str) -> str:
    """Return the root of a configuration file, or the text itself if it names a root."""
    path = Path(stack)
    if path.suffix.lower() not in (".yaml", ".yml") or path.is_dir():
        return stack
    from bperp.flows.config import load_config

    return load_config(path).root


def _as_mapping(result: Any) -> dict[str, Any]:
    if hasattr(result, "as_dict"):
        result = result.as_dict()
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = dataclasses.asdict(result)
    return dict(result) if isinstance(result, Mapping) else {"result": result}


def _show_names(console: Console, lines: Sequence[str]) -> None:
    """Show the first lines of a list that may be long."""
    for line in lines[:_SHOWN]:
        console.line(line)
    if len(lines) > _SHOWN:
        console.line(f"... and {len(lines) - _SHOWN} more: see --json")


def _show_fields(console: Console, title: str, values: Mapping[str, Any]) -> None:
    """Show lists of records as tables and single values as lines."""
    for name, value in values.items():
        label = str(name).replace("_", " ")
        if isinstance(value, Mapping) and all(isinstance(v, Mapping) for v in value.values()):
            _show_records(console, label, [{"": key, **row} for key, row in value.items()])
        elif isinstance(value, Mapping):
            console.table(label, ("", "value"), [(k, _short(v, k)) for k, v in value.items()])
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            _show_records(console, label, value)
        elif value not in (None, "", [], ()):
            console.line(f"{label}: {_short(value, str(name))}")
    console.line(title)


def _show_records(console: Console, label: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Show records as a table; nested values and empty columns are for the JSON document only."""
    names = dict.fromkeys(key for row in records for key in row)
    columns = [
        name
        for name in names
        if not any(isinstance(row.get(name), Mapping) for row in records)
        and any(row.get(name) not in (None, "", 0, 0.0) for row in records)
    ]
    rows = [[_short(row.get(column), column) for column in columns] for row in records]
    if rows:
        console.table(label, [column.replace("_", " ") for column in columns], rows)


def _short(value: Any, name: str = "") -> Any:
    """Return a value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value, name)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item, key)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        text = ", ".join(str(_short(item)) for item in value[:6])
        return f"{text}, ... ({len(value)})" if len(value) > 6 else text or "-"
    return value


def _number(value: float, name: str) -> float | str:
    """Return a number with its unit where the name tells it; bytes and pixels in millions."""
    if "bytes" in name.split("_"):
        return f"{value / 1e6:.1f} MB"
    if name == "pixels":
        return f"{value / 1e6:.2f} M"
    return f"{value:.1f} s" if name == "seconds" else value


def _show_report(console: Console, report: CheckReport) -> None:
    dates = [
        {
            "date": f"{row['date']}{' (reference)' if row['is_reference'] else ''}",
            **{name: row[name] for name in ("mission", "ipf_version", "orbit", "bursts", "flags")},
        }
        for row in report.dates
    ]
    _show_records(console, "dates", dates)
    bursts = [
        {
            "burst": row["burst_id"],
            "swath": row["swath"],
            "dates": f"{len(row['present'])}/{len(report.dates)}",
            "missing": row["missing"],
        }
        for row in report.bursts
    ]
    _show_records(console, "bursts", bursts)
    for item in sorted(report.findings, key=lambda item: _LEVEL_ORDER[item.level]):
        code = f"{item.code} " if item.code else ""
        remedy = f"; fix: {item.remedy}" if item.remedy else ""
        console.line(f"{item.level} {code}{item.where}: {item.message}{remedy}")
    counts = [sum(item.level == level for item in report.findings) for level in _LEVEL_ORDER]
    console.line(f"{counts[0]} errors, {counts[1]} warnings, {counts[2]} ok")
