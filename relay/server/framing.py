"""What a request's headers say about the length of its body (RFC 9112 section 6). Pure.

The parser has refused already: both `Content-Length` and `Transfer-Encoding`, more than one `Content-Length`, and a
`Content-Length` that is not a number or has more than 64 bits.
"""

from collections.abc import Sequence

from relay.errors import Error, Problem


def check_framing(version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise Problem if the transfer codings of a request do not say where its body ends, or are not understood."""
    values = [value for name, value in headers if name == b"transfer-encoding"]
    if not values:
        return
    if version == "1.0":
        # RFC 9112 section 6.1: its framing is faulty, because somebody on the way may not have known the header.
        raise Problem(Error.NOT_HTTP)
    codings = [coding.strip().lower() for coding in b",".join(values).split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise Problem(Error.NOT_HTTP)  # section 6.3: the end of the body cannot be found
    if len(codings) > 1:
        raise Problem(Error.UNKNOWN_CODING)  # section 6.1: without decoding it, another file would be passed on
