"""Who may talk to a scheduler: this machine, or holders of a certificate.

A Dask scheduler runs whatever it is sent, so whoever reaches it can run programs as its owner.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from bperp.stores.errors import ConfigurationError, SecurityError, StorageError

__all__ = ["Endpoint", "TlsFiles", "temporary_certificates", "unsafe_address"]

_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class TlsFiles:
    """Paths of PEM files: who may sign, and the certificate and key of this side."""

    authority: str
    certificate: str
    key: str

    def as_security(self) -> Any:
        """Return the ``distributed.Security`` of client, scheduler and workers alike.

        Raises
        ------
        ConfigurationError
            C104 when a file is absent.
        """
        from distributed import Security

        for path in (self.authority, self.certificate, self.key):
            if not Path(path).is_file():
                raise ConfigurationError(
                    "C104",
                    "a TLS file of the cluster is missing",
                    where=path,
                    remedy="correct compute.cluster.tls_ca, tls_certificate and tls_key",
                )
        roles = ("client", "scheduler", "worker")
        pairs = {f"tls_{role}_cert": self.certificate for role in roles}
        pairs |= {f"tls_{role}_key": self.key for role in roles}
        make: Any = Security
        return make(require_encryption=True, tls_ca_file=self.authority, **pairs)


@dataclass(frozen=True)
class Endpoint:
    """Address of a scheduler and, for ``tls://``, the files that open it.

    As text it is an address with the paths as a query, so that a process which only hands on text
    hands on everything that is needed; keys themselves never leave their files.
    """

    address: str
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        return f"{self.address}?{urlencode(asdict(self.tls))}" if self.tls else self.address

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Restore what ``str`` gave; plain addresses are accepted too."""
        address, _, query = text.partition("?")
        names = {name: values[0] for name, values in parse_qs(query).items()}
        return cls(address, TlsFiles(**names) if names else None)

    def as_security(self) -> Any:
        """Return the ``distributed.Security`` for a client, ``None`` on plain loopback.

        Raises
        ------
        SecurityError
            X906 when the address is neither on this machine nor secured.
        ConfigurationError
            C104 when a TLS file is absent.
        """
        reason = unsafe_address(self.address, has_certificates=self.tls is not None)
        if reason:
            raise SecurityError(
                "X906",
                reason,
                where=self.address,
                expected="tls:// with certificates, or tcp:// on this machine",
                remedy="start the scheduler with certificates and set compute.cluster.tls_ca, "
                "tls_certificate and tls_key",
            )
        return self.tls.as_security() if self.tls else None


def unsafe_address(address: str, *, has_certificates: bool) -> str:
    """Return why a scheduler must not be talked to, an empty text if it may.

    Parameters
    ----------
    address : str
        Such as ``tls://host:8786``.
    has_certificates : bool
        Whether authority, certificate and key are known.
    """
    scheme, host = _parts(address)
    if scheme == "tls":
        return "" if has_certificates else "the address is tls:// but no certificates are given"
    if scheme != "tcp" or not host:
        return "the address of the scheduler is neither tcp://host:port nor tls://host:port"
    if _is_this_machine(host):
        return ""
    return "the scheduler is not on this machine, and the connection is not secured"


def _parts(address: str) -> tuple[str, str]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "", ""
    is_plain = port is not None and not parts.path.strip("/") and "@" not in parts.netloc
    return parts.scheme, (parts.hostname or "") if is_plain else ""


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def temporary_certificates(folder: str | Path) -> Iterator[TlsFiles]:
    """Make certificates for one cluster, in files that only the owner can read.

    Parameters
    ----------
    folder : path
        Folder that all machines of the cluster see; a folder of its own is made in it and removed
        at the end.

    Yields
    ------
    TlsFiles
        Client, scheduler and workers use the same; nobody else is trusted.

    Raises
    ------
    StorageError
        R807 when the folder cannot be written, R816 without the package cryptography.
    """
    from distributed import Security

    make: Any = Security.temporary
    try:
        security = make()
    except ImportError as error:
        raise StorageError(
            "R816",
            "temporary certificates need the package cryptography",
            remedy="pip install cryptography, or set compute.cluster.tls_ca, tls_certificate and "
            "tls_key",
        ) from error
    try:
        own = Path(tempfile.mkdtemp(prefix=".bperp-tls-", dir=folder))
    except OSError as error:
        raise StorageError(
            "R807",
            "the certificates of the cluster cannot be written",
            where=str(folder),
            found=error.strerror or type(error).__name__,
            remedy="set compute.cluster.slurm.shared_directory to a folder that you may write to",
        ) from error
    try:
        yield TlsFiles(
            _write(own / "ca.pem", security.tls_ca_file),
            _write(own / "certificate.pem", security.tls_client_cert),
            _write(own / "key.pem", security.tls_client_key),
        )
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _write(path: Path, text: str) -> str:
    path.touch(_OWNER_ONLY, exist_ok=False)
    path.write_text(text, encoding="ascii")
    return str(path)
