"""Keep credentials out of everything that is printed, logged or stored."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

__all__ = ["SECRET_NAME", "mask_secrets"]

SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|^pass$|_pass$|token|secret|credential|(api|access|private)_?key",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]*@")
_ASSIGNMENT = re.compile(
    r"((?:passw(?:or)?d|passphrase|token|secret|credential|authorization|signature"
    r"|(?:api|access|private)[_-]?key)[\w-]*['\"]?\s*[=:]\s*)"
    r"(?:bearer\s+|basic\s+)?(\"[^\"]*\"|'[^']*'|[^\s,;&}\])]+)",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 6


def mask_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Replace credentials in a text by ``***``.

    Parameters
    ----------
    text : str
        Message, log line or traceback.
    environment : mapping, optional
        Variables whose values are masked where their names look like secrets; default
        ``os.environ``.

    Returns
    -------
    str
        The text without logins in URLs, without values of ``token=...`` and the like, and without
        values of secret environment variables.
    """
    variables = os.environ if environment is None else environment
    for name, value in variables.items():
        if SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _ASSIGNMENT.sub(r"\1***", _URL_LOGIN.sub(r"\1***@", text))
