"""Print all figures, or those named on the command line: ``bench.py [name ...]``.

``make bench`` runs this file; ``make bench ONLY=resample`` runs one figure.
"""

from __future__ import annotations

import sys

# Importing a module registers its figures.
import chain_figures  # noqa: F401
import kernel_figures  # noqa: F401
import scale_figures  # noqa: F401
from measuring import REGISTERED


def main(names: list[str]) -> int:
    """Measure and print; return the exit code."""
    unknown = sorted(set(names) - set(REGISTERED))
    if unknown:
        print(f"unknown figure {unknown[0]}; known: {', '.join(REGISTERED)}", file=sys.stderr)
        return 2
    for name in names or REGISTERED:
        for found in REGISTERED[name]():
            print(found, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
