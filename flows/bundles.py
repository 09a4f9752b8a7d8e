"""Orders that travel together: what one worker gets at a time.

Orders of one group read the same windows, so they go to one worker as one bundle. Bundles shrink
towards the end of a stage, so that no worker is left with all that remains.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from bperp.flows.retrying import run_with_retries
from bperp.flows.worker import RunSite, TaskOrder

__all__ = ["BundleResult", "Flight", "OrderQueue", "run_bundle"]

LARGEST_BUNDLE = 32
"""Orders in one bundle: a lost worker costs at most their work."""
BundleResult = tuple[list[dict[str, Any]], Exception | None]
"""Fields of ``TaskResult`` of the orders that were done, and the fault of the next one."""
_FAST = 1
_GOODBYE_S = 3.0


class OrderQueue:
    """Orders of a stage, handed out in bundles.

    Parameters
    ----------
    orders : sequence of TaskOrder
        What is to be done, orders of a group next to each other.
    """

    def __init__(self, orders: Sequence[TaskOrder]) -> None:
        self._orders, self._next = orders, 0
        self._suspects: deque[TaskOrder] = deque()

    def take(self, workers: int, in_flight: int) -> tuple[TaskOrder, ...]:
        """Return the next orders for one worker; empty when nothing is left, or may start now.

        Parameters
        ----------
        workers : int
            Number of workers that share what is left.
        in_flight : int
            Bundles at work. Suspects are given out one by one and only when nothing else runs: a
            worker that dies then leaves no doubt about the cause.
        """
        if self._suspects:
            return () if in_flight else (self._suspects.popleft(),)
        first, self._next = self._next, self._end_of_bundle(workers)
        return tuple(self._orders[first : self._next])

    def suspect(self, bundle: Sequence[TaskOrder]) -> None:
        """Take back orders one of which may have killed its workers."""
        self._suspects.extend(bundle)

    def _end_of_bundle(self, workers: int) -> int:
        first, total = self._next, len(self._orders)
        if first == total or not self._orders[first].group:
            return min(first + 1, total)
        share = -(-(total - first) // workers)
        stop = min(first + min(share, LARGEST_BUNDLE), total)
        group = self._orders[first].group
        return next((i for i in range(first, stop) if self._orders[i].group != group), stop)


class Flight:
    """Bundles that a cluster works on.

    Parameters
    ----------
    client : distributed.Client
        Connection to its scheduler.
    site : RunSite
        Where the orders read and write.
    """

    def __init__(self, client: Any, site: RunSite) -> None:
        import distributed

        completed: Any = distributed.as_completed
        self._client, self._site_text = client, site.as_json()
        self._bundles: dict[Any, tuple[TaskOrder, ...]] = {}
        self._in_company: set[Any] = set()
        self._finished = completed(loop=client.loop)
        # Two runs on one scheduler may have equal tasks on different roots.
        self._run, self._numbers = uuid.uuid4().hex[:12], itertools.count()

    def __len__(self) -> int:
        return len(self._bundles)

    def submit(self, bundle: tuple[TaskOrder, ...]) -> None:
        """Send a bundle to the scheduler; the name of the stage is what Dask learns times by."""
        packed = _packed([order.as_json() for order in bundle])
        key = f"{bundle[0].stage}-{self._run}-{next(self._numbers)}"
        future = self._client.submit(run_bundle, self._site_text, packed, key=key, pure=False)
        self._bundles[future] = bundle
        if len(self) > 1:
            self._in_company.update(self._bundles)
        self._finished.add(future)

    def has_ready(self) -> bool:
        """Tell whether ``next`` returns at once."""
        return bool(self._finished.has_ready())

    def next(self) -> tuple[Any, tuple[TaskOrder, ...], bool]:
        """Return a finished future, its bundle, and whether it was alone all the time."""
        future = next(self._finished)
        alone = future not in self._in_company
        self._in_company.discard(future)
        return future, self._bundles.pop(future), alone

    def cancel(self) -> None:
        """Have the cluster forget what was not finished; quick even when it is lost."""
        futures, client = list(self._bundles), self._client

        async def forget() -> None:
            await client.cancel(futures, asynchronous=True, force=True)

        with contextlib.suppress(Exception):
            if futures:
                client.sync(forget, callback_timeout=_GOODBYE_S)


def run_bundle(site_text: str, packed: bytes) -> BundleResult:
    """Run the orders of a bundle one after the other, until one of them fails.

    Parameters
    ----------
    site_text : str
        ``RunSite`` as JSON.
    packed : bytes
        Compressed lines, each a ``TaskOrder`` as JSON.
    """
    results: list[dict[str, Any]] = []
    for order_text in zlib.decompress(packed).decode().split("\n"):
        try:
            results.append(run_with_retries(site_text, order_text))
        except Exception as error:
            return results, error
    return results, None


def _packed(texts: Sequence[str]) -> bytes:
    # The orders of a stage repeat most of each other, and the scheduler holds them all.
    return zlib.compress("\n".join(texts).encode(), _FAST)
