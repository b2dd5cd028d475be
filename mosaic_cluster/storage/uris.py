"""What a storage's URI may say."""

from __future__ import annotations

import re

URI_VALID = "give a path, or s3://bucket/prefix"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def is_uri(text: str) -> bool:
    """Whether ``text`` is meant as a URI: a scheme, a colon, a slash."""
    return _SCHEME.match(text) is not None


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """What ``s3://bucket/prefix`` names; the prefix has no slash at its ends, and may be empty.

    Raises:
        ValueError: what is wrong with it, and what is valid. Credentials in it are not repeated.
    """
    match = _SCHEME.match(uri)
    scheme = match[1] if match else ""
    rest = uri[len(scheme) + 1 :].lstrip("/")
    authority, _, prefix = rest.partition("/")
    if "@" in authority:
        raise ValueError(
            f"the URI with the scheme {scheme!r} holds credentials, which would be kept and shown with it; leave them "
            "out: they are taken from the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if scheme != "s3":
        raise ValueError(f"{uri!r} has the scheme {scheme!r}, only s3 is known; {URI_VALID}")
    if not uri.startswith("s3://") or uri.startswith("s3:///") or not authority:
        raise ValueError(f"{uri!r} names no bucket; {URI_VALID}")
    if not _BUCKET.fullmatch(authority):
        raise ValueError(
            f"{uri!r} names the bucket {authority!r}; a bucket's name has 3 to 63 lower-case letters, digits, '-' and "
            f"'.'; an endpoint is given as AWS_ENDPOINT_URL; {URI_VALID}"
        )
    if "?" in prefix or "#" in prefix:
        raise ValueError(f"{uri!r} holds '?' or '#'; {URI_VALID}")
    prefix = prefix.rstrip("/")
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError(f"{uri!r} has an empty part, '.' or '..' in its prefix; {URI_VALID}")
    return authority, prefix
