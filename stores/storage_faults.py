"""What disks, networks and object stores raise, as typed errors.

Client libraries name the same fault in their own ways and put into their messages what the server
sent, which may be the user's access key. What reaches a message here is the status and the code of
the answer, or else the name of the exception and its first line without what must not be shown.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bperp.stores.errors import BperpError, NetworkError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_ELSEWHERE = {"PermanentRedirect", "IllegalLocationConstraintException"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_REFUSED = {
    "AccessDenied",
    "AuthorizationHeaderMalformed",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "Unauthorized",
}
_REFUSED_TYPES = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionDeniedError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthenticatedError",
    "UnauthorizedSSOTokenError",
}
_FINAL_CODES = {"EntityTooLarge", "InvalidRequest", "KeyTooLongError", "NotImplemented"}
_FINAL_STATUSES = {405, 411, 414, 501}
_FINAL_TEXTS = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate"
    r"|non-partial response when range requested|Requested \d+\.\.\d+, got \d+\.\.\d+"
)
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


class LastingFaultError(NetworkError):
    """R810 that another attempt will not mend: waited for in vain, or refused for good."""


@dataclass(frozen=True)
class Answer:
    """What the server said, as far as the client library passes it on; 0 and empty if nothing."""

    status: int = 0
    code: str = ""

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.status, self.code) if part)


def answer_of(error: BaseException) -> Answer:
    """Return status and code of the server's answer behind an exception.

    Parameters
    ----------
    error : BaseException
        As raised by botocore, s3fs, gcsfs, adlfs or obstore.

    Returns
    -------
    Answer
        From the first exception in the chain of causes that has one.
    """
    link: BaseException | None = error
    while link is not None:
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return Answer(int(status), str(response.get("Error", {}).get("Code", "")))
        # aiohttp gives faults of the protocol, such as a body cut short, the number 400.
        is_told = type(link).__module__ != "aiohttp.http_exceptions"
        for name in ("status_code", "status", "code") if is_told else ():
            if isinstance(number := getattr(link, name, None), int):
                return Answer(number, str(getattr(link, "error_code", "") or ""))
        # obstore has no fields: it writes status and body of the answer into its message.
        if found := re.search(r"status code: (\d{3})\b", str(link)):
            code = re.search(r"<Code>(\w+)</Code>", str(link))
            return Answer(int(found[1]), code[1] if code else "")
        link = link.__cause__
    return Answer()


def is_missing_object(error: BaseException) -> bool:
    """Tell a missing object from a missing bucket, which libraries report alike."""
    return isinstance(error, FileNotFoundError) and answer_of(error).code not in _NO_BUCKET


def is_passing(error: BaseException) -> bool:
    """Tell whether an exception of a client library may be gone with the next attempt."""
    if isinstance(error, BperpError):
        return _is_retryable(error)
    typed = _typed(error, "", remote=True)
    return typed is not None and _is_retryable(typed)


def was_turned_away(error: BaseException) -> bool:
    """Tell whether the server said that it did nothing (as opposed to an unknown outcome)."""
    return answer_of(error).status in {429, 503}


@contextlib.contextmanager
def storage_errors(where: str, *, remote: bool = False) -> Iterator[None]:
    """Turn operating system and network faults into typed errors.

    Parameters
    ----------
    where : str
        Name of the object for the message.
    remote : bool
        Whether unknown faults are the network's: they become R810.

    Raises
    ------
    StorageError
        R804 disk full or quota used up, R807 permission denied, no such bucket, credentials that
        the store does not accept.
    NetworkError
        R810 remote store not answering as it should.
    """
    try:
        yield
    except (BperpError, MemoryError):
        raise
    except Exception as error:
        typed = _typed(error, where, remote=remote)
        if typed is None:
            raise
        # The body of a refusal may repeat the access key; tracebacks would show it.
        raise typed from (None if answer_of(error).status else error)


def without_credentials(text: str) -> str:
    """Return a URL, or a message with URLs, fit for logs and messages.

    User name and password, everything from a question mark on (signatures) and the credentials
    that the environment holds are taken out.
    """
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= 8:
            text = text.replace(secret, "***")
    return re.sub(r"\?.*$", "", re.sub(r"(?<=://)[^/@\s]*@", "", text))


def _is_retryable(error: BperpError) -> bool:
    return error.code == "R810" and not isinstance(error, LastingFaultError)


def _typed(error: Exception | BaseException, where: str, *, remote: bool) -> BperpError | None:
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    answer = answer_of(error) if remote else Answer()
    if number in _FULL or answer.code in _FULL_CODES or answer.status == 507:
        return StorageError(
            "R804",
            "the disk is full or the quota is used up",
            where=where,
            remedy="free space and run the same command again: it resumes",
        )
    if remote and (refused := _refusal(error, answer, where)) is not None:
        return refused
    if number in _DENIED or isinstance(error, PermissionError):
        return StorageError(
            "R807",
            "writing or reading is not permitted",
            where=where,
            found=type(error).__name__,
            remedy="check the owner, the permissions and the credentials of the store",
        )
    return _unreachable(error, answer, where) if remote else None


def _refusal(error: BaseException, answer: Answer, where: str) -> StorageError | None:
    if answer.code in _NO_BUCKET:
        cause, remedy = "the bucket does not exist", "create it, or correct root: and the endpoint"
    elif answer.code in _ELSEWHERE or answer.status == 301 or "without LOCATION" in str(error):
        cause = "the bucket lies in another region"
        remedy = "set AWS_DEFAULT_REGION to the region of the bucket"
    elif answer.code in _EXPIRED:
        cause = "the credentials have expired"
        remedy = "log in again or export new ones, then run the same command again: it resumes"
    elif answer.code == "RequestTimeTooSkewed":
        cause, remedy = "the clock of this machine is wrong", "set the clock, then run again"
    elif answer.code in _REFUSED or answer.status in {401, 403}:
        cause = "the object store refuses access"
        remedy = (
            "check the credentials (environment or profile) and that they allow to read, write, "
            "list and delete objects of the bucket"
        )
    elif type(error).__name__ in _REFUSED_TYPES:
        cause = "there are no usable credentials for the object store"
        remedy = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    else:
        return None
    found = str(answer) or type(error).__name__
    return StorageError("R807", cause, where=where, found=found, remedy=remedy)


def _unreachable(error: BaseException, answer: Answer, where: str) -> NetworkError:
    text = str(error)
    # What the interpreter itself raises is a fault of a program, not of a network.
    internal = type(error).__module__ == "builtins" and not isinstance(error, OSError)
    final = answer.status in _FINAL_STATUSES or answer.code in _FINAL_CODES
    final = final or _FINAL_TEXTS.search(text) is not None
    kind = LastingFaultError if internal or final else NetworkError
    first = without_credentials(text.strip().splitlines()[0] if text.strip() else "")
    return kind(
        "R810",
        "the object store did not answer as it should",
        where=where,
        found=str(answer) or f"{type(error).__name__}: {first[:200]}".rstrip(": "),
        remedy="check the endpoint and the network; run again to resume",
    )
