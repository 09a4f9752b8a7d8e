"""Prefect flows, command line, engine and reports: the layer that opens and submits."""

if __name__ != "bperp.flows":
    raise ImportError(
        f"this package is bperp.flows but was imported as {__name__!r}: a second name gives "
        "every type and compiled kernel a twin; write 'import bperp.flows' and take the "
        "repository root off sys.path"
    )
