"""Growing axes: which date or pair of dates lies where along the first axis of a product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bperp.stores.cube import CubeStore
from bperp.stores.errors import StorageError

PAIR_COORDINATES = ("reference_date", "secondary_date")


def date_labels(days: NDArray[np.integer]) -> list[str]:
    """Return ISO dates for days since 1970-01-01."""
    return [str(day) for day in days.astype("datetime64[D]")]


def pair_labels(reference: NDArray[np.integer], secondary: NDArray[np.integer]) -> list[str]:
    """Return ``reference_secondary`` for pairs of days since 1970-01-01."""
    pairs = zip(date_labels(reference), date_labels(secondary), strict=True)
    return [f"{first}_{second}" for first, second in pairs]


class GrowingAxes:
    """Positions of labels in the products of a store, read once per product.

    Parameters
    ----------
    store : CubeStore
        Its products must keep their axes while this object is used: one per run.
    """

    def __init__(self, store: CubeStore) -> None:
        self._store = store
        self._labels: dict[str, dict[str, int]] = {}

    def positions(self, product: str, labels: Sequence[str]) -> list[int]:
        """Return the positions of dates or pairs along the first axis of a product.

        Raises
        ------
        StorageError
            R801 when the product lacks one of them.
        """
        known = self._labels.get(product)
        if known is None:
            known = {label: index for index, label in enumerate(self._read(product))}
            self._labels[product] = known
        missing = [label for label in labels if label not in known]
        if missing:
            raise StorageError(
                "R801",
                f"the product does not hold {missing[0]}",
                where=product,
                expected=f"one of its {len(known)} dates or pairs",
                remedy="run the earlier steps for this date first",
            )
        return [known[label] for label in labels]

    def _read(self, product: str) -> list[str]:
        coordinates = self._store.variables(product)[1]
        if "date" in coordinates:
            return date_labels(self._store.read(product, "date"))
        if all(name in coordinates for name in PAIR_COORDINATES):
            first, second = (self._store.read(product, name) for name in PAIR_COORDINATES)
            return pair_labels(first, second)
        return []
