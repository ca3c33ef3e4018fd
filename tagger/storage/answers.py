"""What the failures of boto3 mean for a file."""

from __future__ import annotations

import errno

from botocore import exceptions as boto
from urllib3 import exceptions as http

from tagger.storage.faults import ConditionFailed, CredentialsFault, Throttled


class EmptyRange(OSError):
    """A range of an object that ends before it; an empty one has no other."""


_BAD_CREDENTIALS = frozenset(
    "AuthFailure AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException InvalidAccessKeyId "
    "InvalidClientTokenId InvalidSecurity InvalidToken MissingAuthenticationToken SignatureDoesNotMatch "
    "TokenRefreshRequired UnrecognizedClientException".split()
)
_THROTTLING = frozenset(
    "BandwidthLimitExceeded ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled "
    "RequestThrottledException ServiceUnavailable SlowDown Throttling ThrottlingException TooManyRequests "
    "TooManyRequestsException".split()
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.LoginError,
    boto.ProfileNotFound,
)


def may_pass(error: OSError) -> bool:
    """Whether another attempt may better it."""
    return isinstance(error, Throttled | TimeoutError) or error.errno == errno.EIO


def fault(error: Exception, bucket: str) -> OSError:
    """What a failure of boto3 means for a file. Texts of boto3 are not passed on: they may hold addresses."""
    if isinstance(error, boto.ClientError):
        return _answered(error, bucket)
    kind = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsFault(f"there are no credentials that work for S3 ({kind})")
    if isinstance(error, boto.ParamValidationError):
        return OSError(errno.EINVAL, f"{bucket!r} is no name of a bucket, or the key is none")
    if isinstance(error, boto.ConnectTimeoutError | boto.ReadTimeoutError | http.TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "the store did not answer in time")
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError | http.HTTPError):
        return OSError(errno.EIO, f"the connection to the store broke ({kind})")
    return OSError(errno.EPROTO, f"the store cannot be used ({kind})")


def _answered(error: boto.ClientError, bucket: str) -> OSError:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", "")).removeprefix(str(status))  # HEAD gives the number twice
    said = f"the store answers {status} {code}".rstrip()
    if code == "RequestTimeTooSkewed":
        return CredentialsFault("the store refuses the clock of this machine (RequestTimeTooSkewed)")
    if code in _BAD_CREDENTIALS:
        return CredentialsFault(f"the store does not accept the credentials ({code})")
    if code in _THROTTLING or status in (429, 503):
        return Throttled(said)
    if code == "RequestTimeout" or status in (408, 504):
        return TimeoutError(errno.ETIMEDOUT, said)
    if status in (404, 410):
        what = f"no bucket {bucket}" if code == "NoSuchBucket" else "no such object"
        return FileNotFoundError(errno.ENOENT, what)
    if status in (401, 403):
        return PermissionError(errno.EACCES, said)
    if status == 412:
        return ConditionFailed()
    if status == 416:
        return EmptyRange(errno.EINVAL, "the store has no such range")
    if status >= 500 or status == 409 or code in ("BadDigest", "IncompleteBody"):  # 409: two conditional writes at once
        return OSError(errno.EIO, said)
    return OSError(errno.EPROTO, said)
