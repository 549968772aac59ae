"""The meaning of request headers: Accept, prefetching, Content-Type."""

import pytest

from relay.server.headers import has_coding, is_form, is_media_type, is_prefetch, is_service_worker, wants_json


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("application/*", False),
        ("application/json", True),
        ("Application/JSON", True),
        ("application/problem+json", True),
        ("application/json; charset=utf-8", True),
        ("text/plain, application/json", True),
        ("application/json;q=0", False),
        ("application/json; q=0.000", False),
        ("application/json;q=0.1", True),
        ("application/json;q=0.1, text/plain", False),
        ("application/json;q=0.5, text/html;q=0.4", True),
        ("application/json;q=2", False),
        ("application/json;q=", False),
        ("application/json;q=nan", False),
        ("application/json;Q=0", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/jsonx", False),
        (",;,=;q", False),
    ],
)
def test_json_is_only_for_clients_that_name_it(accept: str, wanted: bool) -> None:
    assert wants_json(accept) is wanted


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
    [({"service-worker": "script"}, True), ({"service-worker": "navigation"}, False), ({"sec-purpose": "x"}, False)],
)
def test_requests_for_the_script_of_a_service_worker(headers: dict[str, str], asks: bool) -> None:
    assert is_service_worker(headers) is asks


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("multipart/form-data; boundary=x", True),
        ("Multipart/Form-Data", True),
        ("multipart/form-data ;boundary=x", True),
        ("multipart/mixed; boundary=x", False),
        ("application/x-www-form-urlencoded", False),
        ("text/plain; x=multipart/form-data", False),
        ("", False),
    ],
)
def test_what_is_a_form_with_files(value: str, form: bool) -> None:
    assert is_form(value) is form


@pytest.mark.parametrize(
    ("value", "coded"),
    [("", False), ("identity", False), ("Identity, ", False), ("gzip", True), ("identity, br", True), ("x", True)],
)
def test_what_is_a_content_coding(value: str, coded: bool) -> None:
    assert has_coding(value) is coded


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("", True),
        ("text/plain; charset=utf-8", True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("a\x00b", False),
        ("a\nb", False),
        ("a\x7fb", False),
        ("caf\xe9/x", True),
        ("a/\u2028", False),
    ],
)
def test_what_can_be_a_content_type(value: str, good: bool) -> None:
    assert is_media_type(value) is good
