"""What the verbs do: load the configuration, call the worker function, show the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bperp.flows.console import Console, Outcome
from bperp.stores.errors import ConfigurationError

__all__ = ["RunRequest", "check", "demo", "doctor", "export", "run", "simulate", "status"]

ENGINES = ("local", "serial", "prefect")
FORMATS = ("stamps", "csv")
_LEVEL_ORDER = {"error": 0, "warning": 1, "ok": 2}


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
    options = dataclasses.replace(PRESETS[preset], seed=seed, template=template, as_zip=as_zip)
    result = _as_mapping(simulate_stack(out, options, console.progress()))
    return Outcome({"out": str(out), **result}, lambda c: _show_fields(c, f"wrote {out}", result))


def check(console: Console, path: Path) -> Outcome:
    """Check a configuration and its data."""
    from bperp.flows.check import check_stack
    from bperp.flows.config import load_config

    report = check_stack(load_config(path))
    return Outcome(report.as_dict(), lambda c: _show_report(c, report), report.exit_code)


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
    title = "would do" if request.dry_run else f"results are in {config.root}"
    return Outcome(payload, lambda c: _show_fields(c, title, payload))


def status(console: Console, stack: str) -> Outcome:
    """Show the state of a stack."""
    from bperp.flows.run import stack_status

    root = _root_of(stack)
    payload = _as_mapping(stack_status(root))
    return Outcome(payload, lambda c: _show_fields(c, root, payload))


def export(console: Console, stack: str, file_format: str, out: Path | None) -> Outcome:
    """Export finished products."""
    _require_choice("--format", file_format, FORMATS)
    root = _root_of(stack)
    from bperp.flows.export import export_product

    payload = _as_mapping(export_product(root, file_format, out))
    return Outcome(payload, lambda c: _show_fields(c, f"exported {file_format}", payload))


def demo(console: Console, out: Path, *, preset: str, seed: int) -> Outcome:
    """Simulate, process and compare with the truth."""
    from bperp.flows.demo import run_demo

    payload = _as_mapping(run_demo(out, preset, seed, console.progress()))
    return Outcome(payload, lambda c: _show_fields(c, f"results are in {out}", payload))


def doctor(console: Console) -> Outcome:
    """Examine the installation."""
    from bperp.flows.doctor import examine

    diagnosis = examine()

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


def _show_fields(console: Console, title: str, values: Mapping[str, Any]) -> None:
    """Show lists of records as tables and single values as lines."""
    for name, value in values.items():
        label = str(name).replace("_", " ")
        if isinstance(value, Mapping) and value:
            console.table(label, ("", "value"), [(k, _short(v)) for k, v in value.items()])
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            columns = list(dict.fromkeys(key for row in value for key in row))
            rows = [[_short(row.get(column)) for column in columns] for row in value]
            console.table(label, columns, rows)
        else:
            console.line(f"{label}: {_short(value)}")
    console.line(title)


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        text = ", ".join(str(_short(item)) for item in value[:6])
        return f"{text}, ... ({len(value)})" if len(value) > 6 else text or "-"
    return value


def _show_report(console: Console, report: Any) -> None:
    if report.dates:
        columns = ("date", "mission", "IPF", "orbit", "bursts", "flags")
        rows = [
            (
                f"{row['date']}{' (reference)' if row['is_reference'] else ''}",
                row["mission"],
                row["ipf_version"],
                row["orbit"],
                row["bursts"],
                _short(row["flags"]),
            )
            for row in report.dates
        ]
        console.table("dates", columns, rows)
        total = len(report.dates)
        rows = [
            (
                row["burst_id"],
                row["swath"],
                f"{len(row['present'])}/{total}",
                _short(row["missing"]),
            )
            for row in report.bursts
        ]
        console.table("bursts", ("burst", "swath", "dates", "missing"), rows)
    for item in sorted(report.findings, key=lambda item: _LEVEL_ORDER[item.level]):
        code = f"{item.code} " if item.code else ""
        remedy = f"; fix: {item.remedy}" if item.remedy else ""
        console.line(f"{item.level} {code}{item.where}: {item.message}{remedy}")
    counts = [sum(item.level == level for item in report.findings) for level in _LEVEL_ORDER]
    console.line(f"{counts[0]} errors, {counts[1]} warnings, {counts[2]} ok")
