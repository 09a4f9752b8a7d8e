"""The one place where numba is configured.

Every kernel takes ``njit`` from here, so that the rules below hold everywhere:

* ``nogil=True``: Dask threads and the progress display run while a kernel computes.
* no ``parallel=True``: workers are single threaded processes; a second threading layer inside
  them oversubscribes the machine and aborts under the ``workqueue`` layer.
* no on-disk cache: numba does not notice an edited callee in another module and would silently
  run the old code.
* no ``fastmath`` by default: it may drop NaN tests; a kernel that masks explicitly may ask for
  single flags, e.g. ``fastmath={"contract", "reassoc"}``.
* ``BPERP_BOUNDSCHECK=1`` turns on index checks (used by the tests).

Index arithmetic in hot loops uses ``np.uint64``: a signed index carries a wrap-around branch that
keeps LLVM from vectorising (measured 6 to 10 times slower).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, overload

import numba

F = TypeVar("F", bound=Callable[..., Any])

_BOUNDSCHECK = os.environ.get("BPERP_BOUNDSCHECK", "0") == "1"


@overload
def njit(function: F) -> F: ...
@overload
def njit(**options: Any) -> Callable[[F], F]: ...
def njit(function: F | None = None, **options: Any) -> F | Callable[[F], F]:
    """Compile a kernel with the house options; usable with and without arguments."""
    settings: dict[str, Any] = {"nogil": True, "boundscheck": _BOUNDSCHECK, **options}
    if settings.get("parallel") or settings.get("cache"):
        raise ValueError("kernels use neither parallel=True nor cache=True, see kernels/_jit.py")

    def decorate(body: F) -> F:
        compiled: F = numba.njit(**settings)(body)
        return compiled

    return decorate if function is None else decorate(function)
