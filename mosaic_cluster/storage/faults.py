"""What an object store's refusals and failures mean: which are worth another try, and what to say of the others."""

from __future__ import annotations

import re
from enum import Enum

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from mosaic_cluster.worker.errors import NoSuchBucket, StorageDenied, StorageError

VARIABLES = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL"
_DENIED = {
    "AccessDenied", "AllAccessDisabled", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidSecurity", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}  # fmt: skip
# "OperationAborted" and "ConditionalRequestConflict": another write to the same name is under way. "NoSuchUpload": the
# answer to an upload's last request was lost, and the request repeated; the whole upload is, then.
_TRANSIENT = {
    "ConditionalRequestConflict", "InternalError", "NoSuchUpload", "OperationAborted", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
}  # fmt: skip
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")


class Kind(Enum):
    """What kind of failure it is."""

    TRANSIENT = "transient"
    EXISTS = "exists"
    MISSING = "missing"
    CHANGED = "changed"
    NO_BUCKET = "no bucket"
    DENIED = "denied"
    OTHER = "other"


def kind_of(error: BaseException) -> Kind:
    """Kind of what ``obstore`` raised."""
    text = str(error)
    status, code = _status(text), _code(text)
    if code == "NoSuchBucket":
        return Kind.NO_BUCKET
    if code in _DENIED or status in (401, 403) or isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return Kind.DENIED
    if status == 501:
        return Kind.OTHER
    if code in _TRANSIENT or status in (408, 409, 429) or status >= 500:
        return Kind.TRANSIENT
    if isinstance(error, AlreadyExistsError):
        return Kind.EXISTS
    if isinstance(error, PreconditionError):
        return Kind.CHANGED
    if isinstance(error, FileNotFoundError):
        return Kind.MISSING
    return Kind.TRANSIENT if "HTTP error" in text else Kind.OTHER


def lasting(error: BaseException, location: str, bucket: str, action: str) -> StorageError:
    """The error to raise for a failure that no other try mends. Says no credential, nor a part of one."""
    kind, text = kind_of(error), str(error)
    if kind is Kind.NO_BUCKET:
        return NoSuchBucket(
            f"{location}: cannot {action}: there is no bucket {bucket!r}; create it, or correct its name, AWS_REGION "
            "or AWS_ENDPOINT_URL"
        )
    if kind is Kind.DENIED:
        return denied(location, bucket, action, brief(error))
    if "incorrectly configured region" in text or _code(text) in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return StorageError(
            f"{location}: cannot {action}: the bucket {bucket!r} is in another region; set AWS_REGION to that one"
        )
    if _status(text) == 501:
        return StorageError(
            f"{location}: cannot {action}: the object store does not know this request ({brief(error)}); it must "
            "support conditional writes (If-None-Match)"
        )
    return StorageError(f"{location}: cannot {action}: {brief(error)}")


def denied(location: str, bucket: str, action: str, why: str) -> StorageDenied:
    """The error of a credential that is missing, wrong, expired or not enough."""
    hint = "check this machine's clock" if "RequestTimeTooSkewed" in why else "give a credential that may do this"
    return StorageDenied(
        f"{location}: cannot {action}: bucket {bucket!r} refused it: {why}; {hint}, in the environment of "
        f"every process that uses the storage: {VARIABLES} are looked at"
    )


def brief(error: BaseException) -> str:
    """What happened, in a few words; bodies of answers may hold a key's id, so only the code is taken of them."""
    text = str(error)
    status, code = _status(text), _code(text)
    if status:
        return f"{code}, status {status}" if code else f"status {status}"
    if "kind: Timeout" in text:
        return "no answer in time"
    if "kind: Connect" in text:
        return "no connection"
    if "HTTP error" in text:
        return "the connection was lost"
    first = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"://[^/\s@]*@", "://", first)


def _status(text: str) -> int:
    found = _STATUS.search(text)
    return int(found[1]) if found else 0


def _code(text: str) -> str:
    found = _CODE.search(text)
    return found[1] if found else ""
