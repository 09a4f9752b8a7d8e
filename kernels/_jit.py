"""The one place where numba is configured.

Every kernel takes ``njit`` from here, so that the rules below hold everywhere:

* ``nogil=True``: Dask threads and the progress display run while a kernel computes.
* no ``parallel=True``: workers are single threaded processes; a second threading layer inside
  them oversubscribes the machine and aborts under the ``workqueue`` layer.
* no ``fastmath`` by default: it may drop NaN tests; a kernel that masks explicitly may ask for
  single flags, e.g. ``fastmath={"contract", "reassoc"}``.
* ``BPERP_BOUNDSCHECK=1`` turns on index checks (used by the tests).

Index arithmetic in hot loops uses ``np.uint64``: a signed index carries a wrap-around branch that
keeps LLVM from vectorising (measured 6 to 10 times slower).

Compiled code is kept on disk, as compiling takes most of a minute per process. numba's own cache
is unsafe for that: it does not notice an edited callee in another module and silently runs the old
code, and two processes that store different signatures of one function at the same time can mix
them up. Therefore the folder is named by a digest of all sources of the kernels, and storing takes
a lock. ``BPERP_JIT_CACHE=0`` turns the cache off, any other text is the folder to use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_BOUNDSCHECK = os.environ.get("BPERP_BOUNDSCHECK", "0") == "1"


def source_digest(folder: str) -> str:
    """Return a digest of the Python sources below a folder and of what compiles them."""
    state = hashlib.sha256(f"{numba.__version__} {np.__version__} {_BOUNDSCHECK}".encode())
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(place, name)  # noqa: PTH118 - no paths in kernels but here
                state.update(os.path.relpath(path, folder).encode())
                with open(path, "rb") as source:  # noqa: PTH123
                    state.update(source.read())
    return state.hexdigest()[:20]


def _cache_folder() -> str | None:
    """Return a writable folder for compiled code, or None: then every process compiles."""
    wanted = os.environ.get("BPERP_JIT_CACHE", "")
    if wanted == "0":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    base = wanted or os.path.join(home, "bperp")  # noqa: PTH118
    kernels = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    folder = os.path.join(base, f"jit-{source_digest(kernels)}")  # noqa: PTH118
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


_FOLDER = _cache_folder()
if _FOLDER is not None:
    # numba makes its options at run time, where no type checker sees them.
    numba.config.CACHE_DIR = _FOLDER  # type: ignore[attr-defined]


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    with open(f"{_FOLDER}/lock", "w") as handle:  # noqa: PTH123
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _store_under_lock(dispatcher: Any) -> None:
    """Let one process at a time read, extend and write the index of the cache."""
    cache = dispatcher._cache
    save = cache.save_overload

    def save_overload(signature: Any, data: Any) -> None:
        with _storing():
            save(signature, data)

    cache.save_overload = save_overload


@overload
def njit(function: F) -> F: ...
@overload
def njit(**options: Any) -> Callable[[F], F]: ...
def njit(function: F | None = None, **options: Any) -> F | Callable[[F], F]:
    """Compile a kernel with the house options; usable with and without arguments."""
    if options.get("parallel") or "cache" in options:
        raise ValueError("kernels set neither parallel nor cache, see kernels/_jit.py")
    settings: dict[str, Any] = {"nogil": True, "boundscheck": _BOUNDSCHECK, **options}

    def decorate(body: F) -> F:
        compiled: F = numba.njit(cache=_FOLDER is not None, **settings)(body)
        if _FOLDER is not None:
            _store_under_lock(compiled)
        return compiled

    return decorate if function is None else decorate(function)
