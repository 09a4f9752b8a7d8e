"""Which finished steps know all dates and options of their root, and which are behind."""

from __future__ import annotations

from bperp.flows.config import StackConfig
from bperp.flows.elevation_contents import stage_options
from bperp.flows.engine import StageContext, explain_stages
from bperp.flows.root import Root
from bperp.pipeline.steps import STAGES

__all__ = ["steps_behind"]


def steps_behind(root: Root) -> dict[str, int]:
    """Return the finished steps that would run again, with the number of tasks left to do.

    Their products are true for the dates and options they were made from and stay readable.

    Parameters
    ----------
    root : Root
        Root as the last run recorded it; nothing is written.

    Returns
    -------
    dict of str to int
        Step to tasks, 0 where an earlier step has to be finished before they can be counted.
    """
    config = StackConfig.from_values(root.config)
    context = StageContext(root.stack, stage_options(config, root.elevation))
    names = [stage.name for stage in STAGES]
    summary = explain_stages(STAGES, context, root.store, names)
    finished = root.ledger.markers()
    return {
        stage.name: len(stage.reasons)
        for stage in summary.stages
        if stage.name in finished and stage.status != "current"
    }
