"""Ctrl-C and SIGTERM end a run in the same, orderly way."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_requested = threading.Event()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread on SIGINT and SIGTERM while inside.

    Python swallows an exception that a signal handler raises inside a destructor or a callback from
    C, so the wish is also remembered for ``raise_if_requested``. Outside the main thread, which
    signals do not reach, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        _requested.set()
        raise KeyboardInterrupt

    show_unraisable = sys.unraisablehook

    def hide_swallowed(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            show_unraisable(unraisable)

    _requested.clear()
    sys.unraisablehook = hide_swallowed
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
        sys.unraisablehook = show_unraisable
        _requested.clear()


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers of SIGINT and SIGTERM back that something inside replaces.

    ``dask_jobqueue`` installs its own when it is imported; Ctrl-C would then end the process
    without leaving the store in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def raise_if_requested() -> None:
    """Raise KeyboardInterrupt when a signal came whose exception was swallowed.

    To be called now and then by everything that waits or loops.
    """
    if _requested.is_set():
        raise KeyboardInterrupt
