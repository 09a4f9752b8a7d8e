"""Published cubes: products below ``results/`` that programs without bperp read.

Their group documents carry the metadata of all arrays (consolidated), so that opening costs one
request, and an attribute ``bperp_content`` that is written last. It is what vouches for a cube that
was copied without the markers of its root:

* it is there: the step that wrote the cube had finished when this document was written; its value
  is the digest that the marker of the step has;
* it is not there: the cube is being written, or was copied while it was being written.

It cannot vouch for the copy itself. Objects that a copy lacks or damaged are noticed when they are
read with bperp (R802, R803), because every object of a finished cube exists and has a checksum; an
object of an older state that was left in place is not noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bperp.stores.objects import ObjectStore

__all__ = [
    "CONTENT",
    "PUBLISHED",
    "consolidate",
    "is_published",
    "seal",
    "under",
    "unseal",
    "without_vouchers",
]

PUBLISHED = "results/"
"""Where published products lie in a root."""

CONTENT = "bperp_content"
"""Attribute of a finished cube: the digest of its description and of every block."""

_DOCUMENT = "zarr.json"
_CONSOLIDATED = "consolidated_metadata"


def is_published(product: str) -> bool:
    """Tell whether a product is for readers without bperp."""
    return product.startswith(PUBLISHED)


def under(product: str, name: str) -> str:
    """Return the name of something in a product; a cube that is a root itself has no name."""
    return "/".join(part for part in (product, name) if part)


def consolidate(objects: dict[str, bytes]) -> None:
    """Add the metadata of what lies below them to the group documents of a product.

    Parameters
    ----------
    objects : dict of str to bytes
        Objects of an empty product; the group documents in it are replaced. Zarr calls this "not
        part of the specification"; xarray, zarr-python and zarrita read it, others ignore it.
    """
    documents = {
        name.removesuffix(_DOCUMENT).rstrip("/"): json.loads(data)
        for name, data in objects.items()
        if name.rpartition("/")[2] == _DOCUMENT
    }
    for path, document in documents.items():
        if document["node_type"] != "group":
            continue
        prefix = f"{path}/" if path else ""
        below = {
            name.removeprefix(prefix): documents[name]
            for name in sorted(documents, key=lambda name: (name.count("/"), name))
            if name != path and name.startswith(prefix)
        }
        inline = {"kind": "inline", "must_understand": False, "metadata": below}
        text = json.dumps({**document, _CONSOLIDATED: inline})
        objects[under(path, _DOCUMENT)] = text.encode()


def seal(objects: ObjectStore, product: str, content: str) -> None:
    """Write into a cube that it is finished; the last write before the marker of its step.

    Parameters
    ----------
    objects : ObjectStore
        Where the root lies.
    product : str
        A product; nothing is done to one that is not published.
    content : str
        Digest of its description and of every block, as in the marker.
    """
    if is_published(product):
        _change(objects, product, content)


def unseal(objects: ObjectStore, product: str) -> None:
    """Take back that a cube is finished, before any of its objects changes."""
    if is_published(product):
        _change(objects, product, None)


def without_vouchers(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group document that neither vouches for the cube nor describes its arrays."""
    kept = {name: value for name, value in document.items() if name != _CONSOLIDATED}
    shown = {name: value for name, value in document["attributes"].items() if name != CONTENT}
    return {**kept, "attributes": shown}


def _change(objects: ObjectStore, product: str, content: str | None) -> None:
    name = under(product, _DOCUMENT)
    text = objects.read(name)
    if text is None:
        return
    document = json.loads(text)
    known = document["attributes"]
    if known.get(CONTENT) != content:
        others = {key: value for key, value in known.items() if key != CONTENT}
        attributes = others if content is None else {**others, CONTENT: content}
        objects.write(name, json.dumps({**document, "attributes": attributes}).encode())
