"""The meaning of request headers: Accept, prefetching, Content-Type."""

from collections.abc import Callable

import pytest

from relay.server.headers import has_coding, is_code, is_form, is_media_type, is_prefetch, wants_json

#: The functions that say yes or no to the value of one header, and what they say.
VERDICTS: dict[Callable[[str], bool], dict[str, bool]] = {
    wants_json: {
        "": False,
        "*/*": False,
        "application/*": False,
        "application/json": True,
        "Application/JSON": True,
        "application/problem+json": True,
        "application/json; charset=utf-8": True,
        "text/plain, application/json": True,
        "application/json;q=0": False,
        "application/json; q=0.000": False,
        "application/json;q=0.1": True,
        "application/json;q=0.1, text/plain": False,
        "application/json;q=0.5, text/html;q=0.4": True,
        "application/json;q=2": False,
        "application/json;q=": False,
        "application/json;q=nan": False,
        "application/json;Q=0": False,
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": False,
        "application/jsonx": False,
        ",;,=;q": False,
    },
    is_form: {
        "multipart/form-data; boundary=x": True,
        "Multipart/Form-Data": True,
        "multipart/form-data ;boundary=x": True,
        "multipart/mixed; boundary=x": False,
        "application/x-www-form-urlencoded": False,
        "text/plain; x=multipart/form-data": False,
        "": False,
    },
    has_coding: {
        "": False,
        "identity": False,
        "Identity, ": False,
        "gzip": True,
        "identity, br": True,
        "x": True,
    },
    is_media_type: {
        "": True,
        "text/plain; charset=utf-8": True,
        "x" * 255: True,
        "x" * 256: False,
        "a\x00b": False,
        "a\nb": False,
        "a\x7fb": False,
        "caf\xe9/x": True,
        "a/\u2028": False,
    },
}


@pytest.mark.parametrize(
    ("function", "value", "verdict"),
    [(function, *row) for function, rows in VERDICTS.items() for row in rows.items()],
)
def test_what_a_value_means(function: Callable[[str], bool], value: str, verdict: bool) -> None:
    assert function(value) is verdict


@pytest.mark.parametrize(
    ("headers", "ahead"),
    [
        ({}, False),
        ({"sec-purpose": "prefetch"}, True),
        ({"sec-purpose": "prefetch;prerender"}, True),
        ({"purpose": "Prefetch"}, True),
        ({"x-purpose": "preview"}, True),
        ({"x-moz": "prefetch"}, True),
        ({"service-worker": "script"}, False),
        ({"sec-purpose": ""}, False),
    ],
)
def test_requests_that_a_browser_makes_ahead_of_time(headers: dict[str, str], ahead: bool) -> None:
    assert is_prefetch(headers) is ahead


@pytest.mark.parametrize(
    ("headers", "asks"),
    [
        ({"service-worker": "script"}, True),
        ({"service-worker": "navigation"}, False),
        ({"sec-purpose": "x"}, False),
        ({"sec-fetch-dest": "script"}, True),
        ({"sec-fetch-dest": "style"}, True),
        ({"sec-fetch-dest": "sharedworker"}, True),
        ({"sec-fetch-dest": "document"}, False),
        ({"sec-fetch-dest": "empty"}, False),  # fetch() of a page, which shows a text
    ],
)
def test_requests_for_the_script_of_a_service_worker(headers: dict[str, str], asks: bool) -> None:
    assert is_code(headers) is asks
