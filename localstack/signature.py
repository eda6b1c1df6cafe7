"""Check signatures of AWS requests: find the key that a request names, and check that its secret signed the request.

MiniStack's own functions compute the signatures; MiniStack itself does not check those of root.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ministack.core import iam_evaluator, sigv4
from ministack.core.responses import get_account_id, set_request_account_id
from ministack.services import iam, sts

AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 +Credential=([A-Za-z0-9]+)/\d{8}/[\w-]+/[\w-]+/aws4_request *,.*")
CREDENTIAL = re.compile(r"([A-Za-z0-9]+)/\d{8}/[\w-]+/[\w-]+/aws4_request")
# Query parameters, in lower case, that belong to a signature.
NAMING = {"x-amz-algorithm", "x-amz-credential", "x-amz-signature", "awsaccesskeyid", "signature"}
V4, V2 = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"}, {"AWSAccessKeyId", "Signature"}
WEEK = 7 * 24 * 3600


class RefusedError(Exception):
    """The request is refused; `code` is AWS's name for the reason."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class Request:
    """A request without its body; header names in lower case."""

    method: str
    raw_path: str
    query: Mapping[str, list[str]]
    fields: Mapping[str, str]

    def one(self, name: str) -> str:
        values = self.query.get(name, [])
        if len(values) != 1:
            raise RefusedError("IncompleteSignature", f"{name} must be given once")
        return values[0]


@dataclass(frozen=True)
class Signed:
    """A request that names a known key.

    `check` takes the body and raises RefusedError for a wrong signature. With `body_is_free` the signature does not
    cover the body.
    """

    check: Callable[[bytes], None]
    body_is_free: bool


def claim(request: Request, root: str) -> Signed:
    """Find the key that a request names in its header or its query.

    Raises RefusedError for no key, two keys, or a key that is neither `root` nor issued by STS or IAM here.
    """
    naming = {name for name in request.query if name.lower() in NAMING}
    if "authorization" in request.fields:
        match = AUTHORIZATION.fullmatch(request.fields["authorization"])
        if naming or not match:
            raise RefusedError(
                "IncompleteSignature", "give one AWS4-HMAC-SHA256 signature, in this header or in the query"
            )
        secret = _secret(match[1], root, request.fields.get("x-amz-security-token", ""))
        return Signed(lambda body: _check_header(request, secret, body), body_is_free=False)
    if naming == V4:
        match = CREDENTIAL.fullmatch(request.one("X-Amz-Credential"))
        if not match or request.one("X-Amz-Algorithm") != "AWS4-HMAC-SHA256":
            raise RefusedError("IncompleteSignature", "the query names no AWS4-HMAC-SHA256 credential")
        token = request.one("X-Amz-Security-Token") if "X-Amz-Security-Token" in request.query else ""
        secret = _secret(match[1], root, token)
        service = request.one("X-Amz-Credential").split("/")[3]
        return Signed(lambda body: _check_query(request, secret, body), body_is_free=service == "s3")
    if naming == V2:
        key, token = request.one("AWSAccessKeyId"), ""
        if "x-amz-security-token" in request.query:
            token = request.one("x-amz-security-token")
        _secret(key, root, token)
        return Signed(lambda _body: _check_v2(request, key), body_is_free=True)
    raise RefusedError(
        "MissingAuthenticationToken",
        "sign requests to the stand-in AWS with AWS_EMULATOR_KEY_ID and its secret key of .env",
    )


def _secret(key: str, root: str, token: str) -> str:
    """The secret of a known key. From here on MiniStack handles the request in that key's account."""
    set_request_account_id("")
    if key != root:
        if iam_evaluator.is_root_access_key(key) or not (key in sts._sessions or _iam_account(key)):
            raise RefusedError("InvalidClientTokenId", "The security token included in the request is invalid.")
        set_request_account_id(_iam_account(key) or key)
    credential = iam_evaluator.resolve_credential(key, get_account_id(), token)
    if isinstance(credential, iam_evaluator.CredentialResolutionError):
        raise RefusedError(credential.code, credential.message)
    secret: str = credential.secret_access_key
    return secret


def _iam_account(key: str) -> str:
    return next((account for account, stored in iam._access_keys.to_dict() if stored == key), "")


def _check_header(request: Request, secret: str, body: bytes) -> None:
    signature = _parsed(sigv4.parse_header_signature(request.fields))
    if late := sigv4.request_time_failure(signature):
        raise RefusedError(*late)
    _check(request, signature, secret, body, presigned=False)
    digest = request.fields.get("x-amz-content-sha256", "")
    plain = re.fullmatch("[0-9a-f]{64}", digest)
    if plain and digest != hashlib.sha256(body).hexdigest():
        raise RefusedError("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match.")


def _check_query(request: Request, secret: str, body: bytes) -> None:
    signature = _parsed(sigv4.parse_query_signature(request.query))
    expires = request.one("X-Amz-Expires")
    if not expires.isascii() or not expires.isdigit() or not 0 < int(expires) <= WEEK:
        raise RefusedError("AuthorizationQueryParametersError", f"X-Amz-Expires must be from 1 to {WEEK}")
    try:
        moment = datetime.strptime(signature.amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise RefusedError("IncompleteSignature", "X-Amz-Date is not a date") from error
    age = (datetime.now(UTC) - moment).total_seconds()
    if not -900 < age < int(expires):
        raise RefusedError("AccessDenied", "Request has expired")
    _check(request, signature, secret, body, presigned=True)


def _check(request: Request, signature: Any, secret: str, body: bytes, *, presigned: bool) -> None:
    names = signature.signed_headers.split(";")
    # Headers that choose service and action must be signed. Otherwise a captured URL could be used for another action.
    loose = {name for name in request.fields if name.startswith("x-amz-")} - set(names)
    if "host" not in names or loose:
        raise RefusedError("SignatureDoesNotMatch", f"not signed: {', '.join(sorted(loose)) or 'host'}")
    failure = sigv4.header_signature_failure(
        signature, secret, request.method, request.raw_path, request.query, request.fields, body, presigned=presigned
    )
    if failure:
        raise RefusedError(*failure)


def _check_v2(request: Request, key: str) -> None:
    """Check an S3 URL with a signature of version 2 (HMAC-SHA1), boto3's default for presigned URLs."""
    if not request.one("Expires").isascii():
        raise RefusedError("SignatureDoesNotMatch", "Expires is not a number")
    signed_request = iam_evaluator.SignedRequest(
        key, request.method, request.raw_path, request.query, request.fields, sigv2=True, auth_path=request.raw_path
    )
    verdict = iam_evaluator._sigv2_check(signed_request, get_account_id())
    if isinstance(verdict, iam_evaluator.AuthError):
        raise RefusedError(verdict.code, verdict.message)


def _parsed(signature: Any) -> Any:
    if isinstance(signature, tuple):
        raise RefusedError(*signature)
    return signature
