"""An object store that fails: what is tried again, what is given up at once, and what is said."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3_server as servers
from s3_server import S3

from mosaic_cluster.storage import Storage
from mosaic_cluster.worker.errors import (
    AlreadyExists,
    NoSuchBucket,
    NotFound,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)

SECRETS = list(servers.ENVIRONMENT.values())[:2]
OPERATIONS: dict[str, Callable[[Storage], Any]] = {
    "put": lambda storage: storage.put("x", b"1"),
    "create": lambda storage: storage.create("new", b"1"),
    "get": lambda storage: storage.get("x"),
    "exists": lambda storage: storage.exists("x"),
    "size": lambda storage: storage.size("x"),
    "delete": lambda storage: storage.delete("x"),
    "list": lambda storage: storage.list(),
    "folders": lambda storage: storage.folders(),
    "open_input": lambda storage: storage.open_input("x"),
    "upload": lambda storage: storage.upload("x", Path(__file__)),
}
each_operation = pytest.mark.parametrize("operation", list(OPERATIONS.values()), ids=list(OPERATIONS))


@pytest.fixture
def storage(s3_server: S3) -> Storage:
    found = Storage.open(s3_server.uri, retry_seconds=30)
    found.put("x", b"old")
    return found


def hasty(s3: S3) -> Storage:
    """One that gives up soon."""
    return Storage.open(s3.uri, retry_seconds=1)


@each_operation
@pytest.mark.parametrize("status", [500, 503, 409])
def test_transient_faults_are_tried_again(
    storage: Storage, s3_server: S3, operation: Callable[[Storage], Any], status: int
) -> None:
    s3_server.fail(3, status)
    before = len(s3_server.proxy.requests)
    operation(storage)
    assert len(s3_server.proxy.requests) >= before + 4


@each_operation
def test_lost_answers_are_tried_again(storage: Storage, s3_server: S3, operation: Callable[[Storage], Any]) -> None:
    s3_server.lose_responses(2)
    operation(storage)


@each_operation
def test_a_connection_that_comes_back(storage: Storage, s3_server: S3, operation: Callable[[Storage], Any]) -> None:
    s3_server.cut()
    back = threading.Timer(0.7, s3_server.restore)
    back.start()
    operation(storage)
    back.join()


@each_operation
def test_giving_up_says_what_to_do(storage: Storage, s3_server: S3, operation: Callable[[Storage], Any]) -> None:
    s3_server.cut()
    with pytest.raises(StorageUnavailable, match="no connection.* times in 1 s; check that AWS_ENDPOINT_URL") as caught:
        operation(hasty(s3_server))
    assert s3_server.proxy.url in str(caught.value)
    s3_server.restore()
    s3_server.fail(1000, 503)
    with pytest.raises(StorageUnavailable, match="SlowDown|status 503"):
        operation(hasty(s3_server))
    s3_server.restore()
    operation(hasty(s3_server))


def test_an_answer_that_does_not_come(storage: Storage, s3_server: S3) -> None:
    s3_server.delay(20)
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match="no answer in time"):
        hasty(s3_server).get("x")
    assert time.monotonic() - started < 15


def test_what_was_created_before_its_answer_was_lost_is_ours(storage: Storage, s3_server: S3) -> None:
    s3_server.lose_responses(1)
    storage.create("ours", b"mine")
    assert [method for method, path in s3_server.proxy.requests if path.endswith("/ours")] == ["PUT", "PUT", "HEAD"]
    assert storage.get("ours") == b"mine"


def test_what_somebody_else_created_is_not_ours(storage: Storage, s3_server: S3) -> None:
    storage.create("theirs", b"same")
    s3_server.lose_responses(1)
    with pytest.raises(AlreadyExists):
        storage.create("theirs", b"same")
    s3_server.fail(1, 503)
    with pytest.raises(AlreadyExists):
        storage.create("theirs", b"same")
    assert storage.get("theirs") == b"same"


def test_a_lost_answer_and_then_faults_on_looking_whose_it_is(storage: Storage, s3_server: S3) -> None:
    s3_server.lose_responses(3)
    storage.create("ours", b"mine")
    with pytest.raises(AlreadyExists):
        storage.create("ours", b"mine")


def test_large_uploads_outlast_faults(storage: Storage, s3_server: S3, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 120_000)
    s3_server.fail(3, 503)
    storage.upload("big", source)
    s3_server.lose_responses(2)
    storage.upload("big", source)
    s3_server.lose_responses(2)
    storage.download("big", target)
    assert target.read_bytes() == source.read_bytes()


def test_an_object_that_is_replaced_while_it_is_read(storage: Storage, tmp_path: Path) -> None:
    storage.put("big", b"a" * 9_000_000)
    with storage.open_input("big") as source:
        assert source.read(10) == b"a" * 10
        storage.put("big", b"b" * 9_000_000)
        with pytest.raises(StorageError, match="was replaced while it was read"):
            source.read(10)


# -- credentials ------------------------------------------------------------------------------------------------------


@each_operation
@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "ExpiredToken"), (401, "Unauthorized")])
def test_a_lost_credential_is_told_at_once(
    storage: Storage, s3_server: S3, operation: Callable[[Storage], Any], status: int, code: str,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    # An answer to HEAD has no body: what is wrong with a bad request is then asked with a second one.
    requests = 1 + (operation in (OPERATIONS["exists"], OPERATIONS["size"]) and status == 400)
    before = len(s3_server.proxy.requests)
    s3_server.fail(requests, status, code)
    with pytest.raises(StorageDenied) as caught:
        operation(storage)
    assert len(s3_server.proxy.requests) == before + requests
    said = str(caught.value)
    assert f"bucket '{s3_server.bucket}' refused it" in said
    assert "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and AWS_ENDPOINT_URL" in said
    assert code in said or f"status {status}" in said
    written = said + repr(caught.value.__cause__) + caplog.text + "".join(capfd.readouterr())
    assert not [each for each in SECRETS if each in written]
    operation(storage)  # it is given back, and all is well


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_no_credential_at_all_is_told_without_asking_anybody(
    s3_server: S3, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(StorageDenied, match=f"no credential was sent, as {name} is not set"):
        Storage.open(s3_server.uri).list()
    assert s3_server.proxy.requests == []


def test_a_server_that_checks_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first four requests, which make the bucket and the user, need no credential.
    with servers.serving(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="4") as port, servers.bucket(port) as s3:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        iam = boto3.Session().client("iam", endpoint_url=s3.proxy.url, region_name=servers.REGION)
        iam.create_user(UserName="runner")
        key = iam.create_access_key(UserName="runner")["AccessKey"]
        allowed = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="runner", PolicyName="all", PolicyDocument=allowed)
        with pytest.raises(StorageDenied, match="InvalidAccessKeyId"):
            Storage.open(s3.uri).list()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        with pytest.raises(StorageDenied, match="SignatureDoesNotMatch"):
            Storage.open(s3.uri).list()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        storage = Storage.open(s3.uri)
        storage.create("x/ü 1", b"1")
        assert storage.list() == ["x/ü 1"]
        iam = boto3.Session().client("iam", endpoint_url=s3.proxy.url, region_name=servers.REGION)
        iam.delete_access_key(UserName="runner", AccessKeyId=key["AccessKeyId"])
        for operation in (storage.list, lambda: storage.get("x/ü 1"), lambda: storage.put("y", b"")):
            with pytest.raises(StorageDenied) as caught:
                operation()
            assert key["AccessKeyId"] not in str(caught.value)


# -- what is wrong and stays so ---------------------------------------------------------------------------------------


@each_operation
def test_a_bucket_that_does_not_exist(s3_server: S3, operation: Callable[[Storage], Any]) -> None:
    with pytest.raises(NoSuchBucket, match="there is no bucket 'no-such-bucket'; create it, or correct") as caught:
        operation(Storage.open("s3://no-such-bucket/x"))
    assert not isinstance(caught.value, NotFound)


def test_another_region_and_no_conditional_writes(storage: Storage, s3_server: S3) -> None:
    s3_server.fail(1, 301, "PermanentRedirect")
    with pytest.raises(StorageError, match="is in another region; set AWS_REGION"):
        storage.get("x")
    s3_server.fail(1, 501, "NotImplemented")
    with pytest.raises(StorageError, match="must support conditional writes"):
        storage.create("y", b"")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://bucket/x", "has the scheme 'gs', only s3 is known; give a path, or s3://bucket/prefix"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://AB/x", "names the bucket 'AB'; a bucket's name has 3 to 63 lower-case letters"),
        ("s3://localhost:9000/bucket", "an endpoint is given as AWS_ENDPOINT_URL"),
        ("s3://bucket/x?region=y", r"holds '\?' or '#'"),
        ("s3://bucket/a/../b", "has an empty part"),
        ("s3://AKIA123:geheim@bucket/x", "holds credentials, which would be kept and shown with it; leave them out"),
    ],
)
def test_uris_that_are_refused(uri: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as caught:
        Storage.open(uri)
    assert "geheim" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_an_endpoint_with_credentials_is_refused(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:geheim@127.0.0.1:1")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL holds credentials") as caught:
        Storage.open(s3_server.uri, retry_seconds=1).list()
    assert "geheim" not in str(caught.value)


def test_what_needs_a_path_says_so(s3_server: S3) -> None:
    storage = Storage.open(s3_server.uri + "/")
    assert storage.location == s3_server.uri
    assert repr(storage) == f"Storage({s3_server.uri!r})"
    for ask in (lambda: storage.local_path, lambda: storage.path("x")):
        with pytest.raises(StorageError, match="has no path: it is an object store"):
            ask()


def test_a_bucket_without_a_prefix(s3_server: S3) -> None:
    storage = Storage.open(f"s3://{s3_server.bucket}")
    storage.at("a").put("b", b"1")
    assert storage.list() == ["a/b"]
    assert storage.at("a/b").at("c").location == f"s3://{s3_server.bucket}/a/b/c"
