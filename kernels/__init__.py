"""Numerical kernels: numpy arrays in, numpy arrays out."""

if __name__ != "bperp.kernels":
    raise ImportError(
        f"this package is bperp.kernels but was imported as {__name__!r}: a second name gives "
        "every type and compiled kernel a twin; write 'import bperp.kernels' and take the "
        "repository root off sys.path"
    )
