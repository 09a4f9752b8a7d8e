"""Small whole objects in an object store, with typed faults and patience with the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from bperp.stores.errors import StorageError
from bperp.stores.local_objects import checked_name, nothing_to_copy
from bperp.stores.patience import Spell, network_patience_s, patiently
from bperp.stores.storage_faults import is_missing_object, storage_errors, was_turned_away
from bperp.stores.store_clients import StoreClient

FIRST_ANSWER_S = 30.0
"""A store that never answered is more likely misspelt than out of order."""

T = TypeVar("T")


class RemoteObjects:
    """Objects of an object store.

    Parameters
    ----------
    client : StoreClient
        Makes single attempts.
    url : str
        Root for messages, without credentials.
    """

    def __init__(self, client: StoreClient, url: str) -> None:
        self.client, self._url = client, url
        self._has_answered = False

    @property
    def url(self) -> str:
        """Root without credentials, for messages."""
        return self._url

    def read(self, name: str) -> bytes | None:
        """Return the bytes of an object, ``None`` when there is none."""
        return self._patiently(name, lambda: _none_if_missing(self.client.get, name))

    def read_range(self, name: str, start: int, stop: int | None) -> bytes | None:
        """Return a part of an object; a negative start counts from its end."""
        return self._patiently(
            name, lambda: _none_if_missing(lambda n: self.client.get_range(n, start, stop), name)
        )

    def write(self, name: str, data: bytes) -> None:
        """Create or replace an object in one step."""
        self._patiently(name, lambda: self.client.put(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Create an object unless it exists, by a conditional write.

        Notes
        -----
        An attempt whose answer was lost may have been carried out. If one was, or if the client
        library does not tell, an object with exactly these bytes counts as created here.
        """
        is_lost = self.client.repeats_silently

        def attempt() -> bool:
            nonlocal is_lost
            try:
                return self.client.put_new(name, data)
            except Exception as error:
                is_lost = is_lost or not was_turned_away(error)
                raise

        return self._patiently(name, attempt) or (is_lost and self.read(name) == data)

    def copy(self, source: str, target: str) -> None:
        """Copy a whole object inside the store; R802 when there is none."""
        checked_name(source)

        def attempt() -> bool:
            try:
                self.client.copy(source, target)
            except FileNotFoundError as error:
                if not is_missing_object(error):
                    raise
                return False
            return True

        if not self._patiently(target, attempt):
            raise nothing_to_copy(source)

    def modified(self, name: str) -> float | None:
        """Return when an object was written, by the clock of the store, in s since 1970.

        ``None`` when there is none, or when the store does not tell.
        """
        moment = self._patiently(name, lambda: _none_if_missing(self.client.modified, name))
        return None if moment is None else moment.timestamp()

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names of all objects below a folder."""
        return sorted(self._patiently(prefix, lambda: self.client.list_all(prefix)))

    def children(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder."""
        return sorted(self._patiently(prefix, lambda: self.client.list_folders(prefix)))

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is fine."""
        self._patiently(name, lambda: self.client.delete([name]))

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and everything in it; a missing one is fine."""
        # The answer to a request for many objects may hide that some of them were not deleted.
        before: list[str] = []
        while found := self.names(prefix):
            if found == before:
                raise _not_removed(found[0])
            before = found
            self._patiently(prefix, partial(self.client.delete, found))

    def _patiently(self, name: str, attempt: Callable[[], T]) -> T:
        checked_name(name)

        def operation() -> T:
            with storage_errors(name or self._url, remote=True):
                return attempt()

        patience = network_patience_s()
        if not self._has_answered:
            patience = min(patience, FIRST_ANSWER_S)
        result = patiently(operation, Spell(patience, final=self._has_answered))
        self._has_answered = True
        return result


def _none_if_missing(operation: Callable[[str], T], name: str) -> T | None:
    try:
        return operation(name)
    except FileNotFoundError as error:
        if not is_missing_object(error):
            raise
        return None


def _not_removed(name: str) -> StorageError:
    return StorageError(
        "R807",
        "the object store does not remove an object",
        where=name,
        remedy="check that the credentials allow to delete, and that no retention rule forbids it",
    )
