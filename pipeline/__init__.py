"""Stages: what is computed from what, one tile at a time."""

if __name__ != "bperp.pipeline":
    raise ImportError(
        f"this package is bperp.pipeline but was imported as {__name__!r}: a second name gives "
        "every type and compiled kernel a twin; write 'import bperp.pipeline' and take the "
        "repository root off sys.path"
    )
