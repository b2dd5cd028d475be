"""Experiments on an S3-compatible object store."""

from __future__ import annotations

from conftest import Lab
from s3_server import S3


def test_an_object_store_is_refused_before_anything_is_written(inline: Lab, s3_server: S3) -> None:
    inline.env.update(s3_server.env)
    for verb in ("run", "plan"):
        done = inline.mosaic(verb, inline.write(), *inline.where, "--storage", s3_server.uri)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "storage: s3://" in done.stderr, done.stderr
    assert not s3_server.proxy.requests
