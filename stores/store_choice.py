"""Which client library serves a root: obstore where it is installed and applicable, else fsspec.

Both make single attempts (see ``patience``), find credentials the way botocore does and connect to
the same endpoint; which one it is changes nothing but time.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from bperp.stores.errors import ConfigurationError, SecurityError, StorageError
from bperp.stores.storage_faults import storage_errors, without_credentials

CHOICE_VARIABLE = "BPERP_OBJECT_STORE"
_S3, _GCS, _AZURE = {"s3", "s3a"}, {"gs", "gcs"}, {"az", "abfs", "abfss"}
_WEB = {"http", "https"}
"""Servers of files: published cubes are read from there, nothing can be written."""
_PACKAGES = {
    **dict.fromkeys(_S3, ("s3fs", "fast-s3")),
    **dict.fromkeys(_GCS, ("gcsfs", "gcs")),
    **dict.fromkeys(_AZURE, ("adlfs", "azure")),
}
_PROFILE_BEYOND_OBSTORE = {
    "ca_bundle",
    "endpoint_url",
    "s3",
    "services",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
}
_VARIABLES_BEYOND_OBSTORE = (
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
)
_CONNECT_S, _READ_S, _REQUEST_S = 10, 60, 600
_FRESH = timedelta(minutes=10)
"""botocore renews passing credentials earlier than this before they expire."""


@dataclass(frozen=True)
class StoreChoice:
    """Root and library.

    Attributes
    ----------
    library : {"fsspec", "obstore"}
        Client library.
    root : str
        URL.
    options : mapping
        For fsspec, as the user gave them.
    """

    library: str
    root: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def open_filesystem(self) -> tuple[Any, str]:
        """Return a synchronous fsspec file system and the root in its spelling."""
        options = dict(self.options)
        if _scheme(self.root) in _S3:
            options = {**_single_attempts(), **options}
        with storage_errors(without_credentials(self.root), remote=True):
            filesystem, base = fsspec.core.url_to_fs(self.root, **options)
        if _scheme(self.root) in _S3:
            filesystem.retries = 1
        return filesystem, str(base)

    def open_obstore(self) -> Any:
        """Return an obstore store whose prefix is the root."""
        from obstore.store import from_url

        common: dict[str, Any] = {
            "retry_config": {"max_retries": 0},
            "client_options": {
                "allow_http": _is_http_allowed(_scheme(self.root)),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "read_timeout": timedelta(seconds=_READ_S),
                "timeout": timedelta(seconds=_REQUEST_S),
            },
        }
        with storage_errors(without_credentials(self.root), remote=True):
            if _scheme(self.root) not in _S3:
                return from_url(self.root, **common)
            return _open_s3(self.root, common)


def choose_store(root: str, storage_options: Mapping[str, Any] | None = None) -> StoreChoice:
    """Choose the client library for a root.

    Parameters
    ----------
    root : str
        ``s3://``, ``gs://``, ``az://`` or ``memory://`` URL; ``https://`` for reading.
    storage_options : mapping, optional
        In the words of fsspec, so they rule obstore out.

    Returns
    -------
    StoreChoice
        Nothing is opened or contacted yet.

    Raises
    ------
    ConfigurationError
        C104 for another kind of URL or a package that is not installed, C102 for an unknown word
        in ``BPERP_OBJECT_STORE`` or a choice that cannot serve this root.
    SecurityError
        X907 credentials in the URL, X909 an unencrypted endpoint elsewhere.
    StorageError
        R807 when the AWS profile does not exist.
    """
    scheme, options = _scheme(root), dict(storage_options or {})
    if scheme == "memory":
        return StoreChoice("fsspec", root, options)
    if scheme in _WEB:
        _require_safe_page(root)
        return StoreChoice("fsspec", root, options)
    if scheme not in _PACKAGES:
        raise _unknown_scheme(root)
    _require_no_credentials(root)
    if scheme in _S3:
        _require_safe_endpoint(root, options)
    wish, reason = _wish(), _reason_against_obstore(scheme, options)
    if wish == "obstore" and reason:
        raise ConfigurationError(
            "C102",
            f"obstore cannot serve this root: {reason}",
            where=CHOICE_VARIABLE,
            found=wish,
            remedy="unset it, or set it to auto or fsspec",
        )
    if wish != "fsspec" and not reason:
        return StoreChoice("obstore", root)
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise ConfigurationError(
            "C104",
            f"a package for {scheme}:// roots is not installed",
            where=without_credentials(root),
            expected=f"{package} or obstore",
            found="neither" if wish == "auto" else f"no {package}, and {CHOICE_VARIABLE}={wish}",
            remedy=f"pip install 'bperp[{extra}]'",
        )
    return StoreChoice("fsspec", root, options)


def _wish() -> str:
    wish = os.environ.get(CHOICE_VARIABLE, "") or "auto"
    if wish not in {"auto", "fsspec", "obstore"}:
        raise ConfigurationError(
            "C102",
            "there is no such client library",
            where=CHOICE_VARIABLE,
            expected="auto, fsspec or obstore",
            found=repr(wish),
            remedy="correct or unset it",
        )
    return wish


def _reason_against_obstore(scheme: str, options: Mapping[str, Any]) -> str:
    """Return why obstore would not do what fsspec does, empty when it would."""
    if importlib.util.find_spec("obstore") is None:
        return "it is not installed (pip install 'bperp[fast-s3]')"
    if options:
        return "storage options are in the words of fsspec"
    return _reason_against_obstore_for_s3() if scheme in _S3 else ""


def _reason_against_obstore_for_s3() -> str:
    with storage_errors("AWS profile", remote=True):
        session = _botocore_session()
        profile, region = session.get_scoped_config(), session.get_config_variable("region")
    known = [name for name in _VARIABLES_BEYOND_OBSTORE if os.environ.get(name)]
    known += sorted(_PROFILE_BEYOND_OBSTORE & set(profile))
    if known:
        return f"it does not know {known[0]}"
    if not region and not s3_endpoint():
        return "it cannot find the region of a bucket (set AWS_DEFAULT_REGION)"
    return ""


def s3_endpoint() -> str:
    """Return the S3 endpoint that the environment names, empty for that of AWS."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return ""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _scheme(root: str) -> str:
    return urlsplit(root).scheme.lower()


def _require_no_credentials(root: str) -> None:
    parts = urlsplit(root)
    # abfs://container@account is a place; with a colon before the @ it is user and password.
    user = parts.netloc.rpartition("@")[0]
    if parts.query or ":" in user or (user and parts.scheme not in _AZURE):
        raise _credentials_in_url(root)


def _credentials_in_url(url: str) -> SecurityError:
    return SecurityError(
        "X907",
        "the URL of a root or of an endpoint holds credentials or a signature",
        where=without_credentials(url),
        remedy="give credentials by environment or profile, the URL without @ and ?",
    )


def _require_safe_endpoint(root: str, options: Mapping[str, Any]) -> None:
    given = options.get("endpoint_url") or dict(options.get("client_kwargs", {})).get(
        "endpoint_url"
    )
    endpoint = str(given or s3_endpoint())
    parts = urlsplit(endpoint)
    if parts.username or parts.query:
        raise _credentials_in_url(endpoint)
    if parts.scheme != "http" or _is_http_allowed("s3") or _is_loopback(parts.hostname or ""):
        return
    raise SecurityError(
        "X909",
        "the endpoint of the object store is not encrypted and not on this machine",
        where=without_credentials(root),
        found=without_credentials(endpoint),
        remedy="use https://, or set AWS_ALLOW_HTTP=true if you trust the network",
    )


def _require_safe_page(root: str) -> None:
    parts = urlsplit(root)
    if parts.username or parts.query:
        raise _credentials_in_url(root)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise SecurityError(
            "X909",
            "the server is not encrypted and not on this machine",
            where=without_credentials(root),
            remedy="use https://",
        )


def _is_http_allowed(scheme: str) -> bool:
    family = "AWS" if scheme in _S3 else "GOOGLE" if scheme in _GCS else "AZURE"
    return os.environ.get(f"{family}_ALLOW_HTTP", "").lower() in {"1", "true", "yes"}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _single_attempts() -> dict[str, Any]:
    return {
        # More than one makes s3fs ask for the size before it reads a whole object.
        "max_concurrency": 1,
        "config_kwargs": {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S,
        },
    }


def _open_s3(root: str, common: Mapping[str, Any]) -> Any:
    from obstore.store import S3Store

    session, endpoint, parts = _botocore_session(), s3_endpoint(), urlsplit(root)
    config: dict[str, Any] = {"region": session.get_config_variable("region") or "us-east-1"}
    client_options = dict(common["client_options"])
    if endpoint:
        config["endpoint"] = endpoint.rstrip("/")
        client_options["allow_http"] = endpoint.startswith("http://")
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        client_options["root_certificate"] = Path(bundle).read_bytes()
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        credential_provider=_Credentials(session, without_credentials(root)),
        **{**common, "client_options": client_options},
        **config,
    )


def _botocore_session() -> Any:
    import botocore.session  # type: ignore[import-untyped]

    return botocore.session.get_session()


class _Credentials:
    """What botocore finds in environment, profile, container or instance, for obstore."""

    def __init__(self, session: Any, where: str) -> None:
        self.session, self.where = session, where

    def __call__(self) -> Any:
        from botocore.credentials import RefreshableCredentials  # type: ignore[import-untyped]

        credentials = self.session.get_credentials()
        if credentials is None:
            raise no_credentials(self.where)
        frozen = credentials.get_frozen_credentials()
        passing = isinstance(credentials, RefreshableCredentials)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _FRESH if passing else None,
        }


def no_credentials(where: str) -> StorageError:
    """Return the error for a store that nobody gave credentials for."""
    return StorageError(
        "R807",
        "there are no usable credentials for the object store",
        where=where,
        remedy="export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )


def _unknown_scheme(root: str) -> ConfigurationError:
    return ConfigurationError(
        "C104",
        "no run can write to this kind of URL",
        where=without_credentials(root),
        expected="a folder, s3://, gs://, az:// or memory://",
        found=f"{_scheme(root) or 'no scheme'}",
        remedy="use one of these",
    )
