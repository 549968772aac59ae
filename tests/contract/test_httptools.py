"""What `relay/server/uvicorn_adapter` relies on in httptools, although httptools does not promise it.

If a test fails after an upgrade, the sentence beside it says what would break. Then mend the adapter.
"""

import httptools
import pytest

from tests.contract.http import GET


class Calls:
    """Keeps what a parser reports."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_url(self, url: bytes) -> None:
        self.seen.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.seen.append((name, value))

    def on_headers_complete(self) -> None:
        self.seen.append(self.parser.get_method())

    def on_body(self, body: bytes) -> None:
        self.seen.append(bytes(body))

    def on_message_complete(self) -> None:
        self.seen.append("complete")


OFFER = b"PUT /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n"


def test_an_offered_upgrade_stops_the_parser_behind_the_headers() -> None:
    """Otherwise the body of such a request would be parsed as the next request, or twice."""
    calls = Calls()
    with pytest.raises(httptools.HttpParserUpgrade) as offer:
        calls.parser.feed_data(OFFER + b"ab")
    assert offer.value.args == (len(OFFER),)
    assert calls.parser.should_upgrade()
    assert calls.seen[-2:] == [b"PUT", "complete"]


def test_the_offer_is_only_that_of_the_upgrade_header() -> None:
    """Otherwise it would be offered again without end when the request is repeated without `Upgrade`."""
    calls = Calls()
    calls.parser.feed_data(OFFER.replace(b"Upgrade: h2c\r\n", b"") + b"ab")
    assert calls.seen[-2:] == [b"ab", "complete"]
    assert not calls.parser.should_upgrade()


def test_connect_is_known_before_it_is_an_upgrade() -> None:
    """Otherwise it would be repeated without end."""
    calls = Calls()
    with pytest.raises(httptools.HttpParserUpgrade):
        calls.parser.feed_data(b"CONNECT x:80 HTTP/1.1\r\n\r\n")
    assert b"CONNECT" in calls.seen


def test_what_a_callback_raises_is_the_context_of_the_error() -> None:
    """Otherwise every refusal would say that the request is no HTTP."""

    class Refusing(Calls):
        def on_headers_complete(self) -> None:
            raise ValueError("refused")

    with pytest.raises(httptools.HttpParserError) as error:
        Refusing().parser.feed_data(GET + b"\r\n")
    assert isinstance(error.value.__context__, ValueError)


def test_trailers_are_reported_as_headers_after_the_headers() -> None:
    """Otherwise the adapter would drop something else when it drops them."""
    calls = Calls()
    head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    calls.parser.feed_data(head + b"1\r\na\r\n0\r\nTrailer: t\r\n\r\n")
    assert calls.seen[-4:] == [b"PUT", b"a", (b"Trailer", b"t"), "complete"]


@pytest.mark.parametrize("left", [3, 2**40])
def test_a_new_parser_takes_the_rest_of_a_body_and_what_is_behind_it(left: int) -> None:
    """Otherwise the rest of an upload that has ended would be parsed as requests."""
    calls = Calls()
    calls.parser.feed_data(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % left)
    calls.seen.clear()
    calls.parser.feed_data(b"abc" + GET + b"\r\n")
    if left == 3:
        assert calls.seen == [b"abc", "complete", b"/", (b"Host", b"x"), b"GET", "complete"]
    else:
        assert calls.seen == [b"abc" + GET + b"\r\n"]


def test_what_is_behind_a_request_that_wants_to_close_is_ignored() -> None:
    """Otherwise those bytes would be an error, which aborts the response that is under way."""
    calls = Calls()
    calls.parser.feed_data(GET + b"Connection: close\r\n\r\n" + GET + b"\r\n")
    assert calls.seen.count("complete") == 1
