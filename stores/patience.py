"""Trying again for as long as an outage may last, ever less often, never all at once.

The client libraries give up after seconds, and each in its own way; here they make one attempt and
this module decides. Waiting times are random so that workers that were turned away together do not
come back together; no result depends on them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bperp.stores.errors import BperpError, ConfigurationError, NetworkError
from bperp.stores.storage_faults import LastingFaultError, is_passing

PATIENCE_VARIABLE = "BPERP_NETWORK_PATIENCE_S"
DEFAULT_PATIENCE_S = 300.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_LAST_WORDS_S = 2.0
_SILENT_S = 10.0
"""Spells of trouble that end sooner are not worth a line in the log."""

_random = random.SystemRandom()
"""Not the generator that programs seed: waiting must not change anybody's numbers."""

T = TypeVar("T")


def network_patience_s() -> float:
    """Return for how long a store may be out of reach before a run gives up, in seconds.

    Raises
    ------
    ConfigurationError
        C102 when ``BPERP_NETWORK_PATIENCE_S`` is no number of seconds.
    """
    text = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        patience = float(text or DEFAULT_PATIENCE_S)
    except ValueError:
        patience = -1.0
    if not 0.0 <= patience < float("inf"):
        raise ConfigurationError(
            "C102",
            "the patience with the network is no number of seconds",
            where=PATIENCE_VARIABLE,
            expected="0 or more",
            found=repr(text),
            remedy="correct or unset it",
        )
    return patience


class Spell:
    """One spell of trouble: how long to wait before each attempt, and when to give up.

    Parameters
    ----------
    patience_s : float
        Time from the first fault to the last attempt, in seconds.
    final : bool, default True
        Whether nobody else should go on trying when the time is up.

    Notes
    -----
    While the program is ending, because of Ctrl-C or of a fault that was waited for, its last
    words (log, lock) get two seconds.
    """

    def __init__(self, patience_s: float, *, final: bool = True) -> None:
        if isinstance(sys.exc_info()[1], KeyboardInterrupt | LastingFaultError):
            patience_s = min(patience_s, _LAST_WORDS_S)
        self.patience_s, self.final = patience_s, final
        self.attempts = 0
        self._began = 0.0
        self._told = False

    def pause_s(self, error: BaseException) -> float | None:
        """Return for how long to wait after a fault, ``None`` when the time is up.

        The pause doubles from 0.1 s to 10 s, shortened by a random share of up to a half.
        """
        now = time.monotonic()
        if self.attempts == 0:
            self._began = now
        left = self._began + self.patience_s - now
        if left <= 0.0:
            return None
        if now - self._began > _SILENT_S and not self._told:
            self._told = True
            text = "trying again for up to %.0f s after: %s"
            logging.getLogger(__name__).warning(text, left, error)
        pause = min(_FIRST_PAUSE_S * 2.0 ** min(self.attempts, 20), _LONGEST_PAUSE_S)
        self.attempts += 1
        return min(pause * _random.uniform(0.5, 1.0), left)

    def pause_or_raise(self, error: BperpError) -> float:
        """Return the pause after a fault; raise the fault if it lasts or the time is up."""
        if not is_passing(error):
            raise error
        pause = self.pause_s(error)
        if pause is None:
            raise self._given_up(error) from error
        return pause

    def _given_up(self, error: BperpError) -> NetworkError:
        return (LastingFaultError if self.final else NetworkError)(
            error.code,
            error.cause,
            where=error.where,
            expected=f"an answer within {self.patience_s:g} s ({PATIENCE_VARIABLE})",
            found=error.found,
            remedy=error.remedy,
        )


def patiently(operation: Callable[[], T], spell: Spell) -> T:
    """Return the result of an operation, repeated while its faults are passing ones.

    Parameters
    ----------
    operation : callable
        Raises typed errors; may be carried out more than once.
    spell : Spell
        For how long.

    Raises
    ------
    LastingFaultError
        R810 when the time is up.
    BperpError
        Any other fault, at once.
    """
    while True:
        try:
            return operation()
        except BperpError as error:
            pause = spell.pause_or_raise(error)
        time.sleep(pause)


async def patiently_awaited(operation: Callable[[], Awaitable[T]], spell: Spell) -> T:
    """Do what ``patiently`` does, for a coroutine."""
    while True:
        try:
            return await operation()
        except BperpError as error:
            pause = spell.pause_or_raise(error)
        await asyncio.sleep(pause)
