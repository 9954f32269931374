"""What is said of a store that does not answer."""

from __future__ import annotations

import pytest

from shapelaw.tracking.store import root_cause


@pytest.mark.parametrize(
    ("caused_by", "reason"),
    [
        (
            "ProtocolError('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))",
            "Remote end closed connection without response",
        ),
        (
            "ProtocolError('Connection broken: IncompleteRead(0 bytes read, 2 more expected)', IncompleteRead(0 bytes re",
            "Connection broken",
        ),
        ("ProtocolError('Connection aborted.', BrokenPipeError(32, 'Broken pipe'))", "Broken pipe"),
        ("ProtocolError('Connection aborted.', BadStatusLine('x'))", "the server there does not speak HTTP"),
        ("ProtocolError('Connection aborted.', OSError(5, 'Input/output error'))", "Connection aborted"),
        ("ChunkedEncodingError: Response ended prematurely", "Response ended prematurely"),
        ("ResponseError('too many 503 error responses')", "too many 503 error responses"),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL] certificate verify failed: self-signed certificate (_ssl.c:1006)'))",
            "certificate verify failed: self-signed certificate",
        ),
        (
            "NewConnectionError('<HTTPConnection object at 0x7f>: Failed to connect: [Errno 101] Network is unreachable')",
            "Network is unreachable",
        ),
    ],
)
def test_a_reason_is_the_innermost_and_short(caused_by: str, reason: str) -> None:
    said = f"API request to http://host/api failed with exception Max retries exceeded with url: /api (Caused by {caused_by})"
    assert root_cause(Exception(said)) == reason
    assert root_cause(Exception("plain\nwith more")) == "plain"
    assert root_cause(Exception("no way to http://me:s3cret@host/api")) == "no way to http://me:***@host/api"
