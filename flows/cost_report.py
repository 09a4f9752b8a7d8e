"""The verb ``bperp cost``: from its arguments to an estimate, and the estimate as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bperp.flows.config import STEPS, StackConfig, load_config
from bperp.flows.console import Console
from bperp.flows.cost_loads import count_loads
from bperp.flows.cost_model import Cost, Terms, estimate_cost, extent_of
from bperp.flows.cost_stack import ImaginedStack, imagine_stack
from bperp.pipeline.steps import STAGES
from bperp.stores.errors import ConfigurationError

__all__ = ["PRESETS", "CostRequest", "answer_cost", "show_cost"]

PRESETS = ("frame", "country", "europe")
_LARGEST_IMAGINED = 400
"""Dates; planning takes half a second for each."""


@dataclass(frozen=True)
class CostRequest:
    """Arguments of ``bperp cost``; ``settings`` are ``name=value`` as they were typed."""

    config: Path | None = None
    preset: str = "frame"
    frames: float | None = None
    dates: int | None = None
    workers: int | None = None
    settings: Sequence[str] = ()


def answer_cost(request: CostRequest) -> Cost:
    """Estimate what a configured stack or a preset costs.

    Parameters
    ----------
    request : CostRequest
        With a configuration its indexed products are planned, else a frame of full bursts with the
        default options.

    Raises
    ------
    BperpError
        C102 for arguments that do not fit, and faults of configuration and products.
    """
    numbers = dict(_setting(text) for text in request.settings)
    if request.workers is not None:
        numbers["workers"] = request.workers
    terms = Terms().changed(numbers)
    if request.config is None:
        config = StackConfig.from_values(
            {
                "root": "cost",
                "slc": ["cost"],
                "dem": {"path": "cost", "vertical_datum": "ellipsoid"},
            }
        )
        dates = ImaginedStack.dates if request.dates is None else request.dates
        if not 2 <= dates <= _LARGEST_IMAGINED:
            raise _refused("--dates", f"2 to {_LARGEST_IMAGINED}", str(dates))
        stack = imagine_stack(ImaginedStack(dates=dates))
    else:
        if request.dates is not None or request.preset != "frame":
            raise _refused("--dates, --preset", "no configuration file with them", "both")
        from bperp.flows.stack_index import index_stack

        config = load_config(request.config)
        stack = index_stack(config).stack
    options = {step: config.step_options(step) for step in STEPS}
    loads = count_loads(STAGES, stack, options, terms.assumed)
    return estimate_cost(loads, extent_of(request.preset, request.frames), terms)


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise _refused("--set", "name=number", text) from None


def _refused(where: str, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        "C102",
        "the cost cannot be estimated for this",
        where=where,
        expected=expected,
        found=found,
        remedy="see 'bperp cost --help'",
    )


def show_cost(console: Console, cost: Cost) -> None:
    """Print the table of the stages of a frame, and the totals."""
    columns = ("step", "tasks", "objects", "GETs", "PUTs", "stored GB", "moved GB", "core h",
               "worker GB", "wall h", "limit")  # fmt: skip
    rows = [
        (
            stage.stage,
            stage.tasks,
            stage.objects,
            stage.gets,
            stage.puts,
            f"{stage.stored_bytes / 1e9:.1f}",
            f"{stage.moved_bytes / 1e9:.1f}",
            f"{stage.core_s / 3600:.2f}",
            f"{stage.worker_memory_bytes / 1e9:.2f}",
            f"{stage.wall_s / 3600:.2f}",
            stage.limit,
        )
        for stage in cost.stages
        if stage.tasks
    ]
    console.table("one frame, or the configured stack", columns, rows)
    totals = cost.as_dict()["total"]
    lines = [
        ("frames", f"{cost.extent.frames:g} ({cost.extent.derivation})"),
        ("tasks", f"{totals['tasks']:,}"),
        ("objects", f"{totals['objects']:,}"),
        ("GETs, PUTs", f"{totals['gets']:,}, {totals['puts']:,}"),
        ("stored, moved", f"{totals['stored_bytes'] / 1e12:.2f} TB, "
                          f"{totals['moved_bytes'] / 1e12:.2f} TB"),
        ("core hours", f"{totals['core_hours']:.1f}"),
        ("memory of a worker", f"{totals['worker_memory_bytes'] / 1e9:.1f} GB"),
        ("wall time", f"{totals['wall_hours']:.1f} h on {cost.terms.machine.workers} workers"),
    ]  # fmt: skip
    lines += [(f"dollars: {name}", f"{value:.2f}") for name, value in totals["dollars"].items()]
    console.table("total", ("", "value"), lines)
    for stage in cost.too_large():
        console.line(f"{stage} does not fit into a worker of this memory (memory_bytes)")
    console.line("prices, network and ground are examples: replace them with --set name=value")
