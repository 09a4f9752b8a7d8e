"""Formats and layouts: SAFE, EOF, DEM, Zarr cubes and receipts, StaMPS trees."""

if __name__ != "bperp.stores":
    raise ImportError(
        f"this package is bperp.stores but was imported as {__name__!r}: a second name gives "
        "every type and compiled kernel a twin; write 'import bperp.stores' and take the "
        "repository root off sys.path"
    )
