"""The OpenAPI document says what the app does: asked for by OPTIONS, and tried by schemathesis."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as trying
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from relay.api.openapi import document
from relay.api.routes import OPERATIONS
from relay.errors import Error
from relay.settings import Settings
from tests.support.cluster import Cluster, alone
from tests.support.pages import API

#: The waits are short, so that schemathesis sees them end.
SETTINGS: dict[str, object] = {
    "upload_wait": 0.1,
    "download_wait": 0.05,
    "download_wait_max": 0.1,
    "token_rate": "",
    "failure_rate": "",
}
TOKEN = "A" * 30
#: Checks of schemathesis that do not fit. It takes every 5xx for a fault, but 504 is the answer if nobody downloads. A
#: name of 255 characters may have more than 255 bytes, which no schema can say.
EXCLUDED = [not_a_server_error, positive_data_acceptance]


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    with alone(**SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def served(node: Cluster) -> Any:
    return httpx.get(node[0].url + "/openapi.json").json()


def test_the_app_has_one_handler_for_each_operation_of_the_table() -> None:
    """A second one would replace the first without a word."""
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


def test_the_app_serves_each_path_of_the_document_with_its_own_methods(node: Cluster, served: Any) -> None:
    for path, methods in served["paths"].items():
        answer = httpx.options(
            node[0].url + path.format(token=TOKEN, name="x", upload="0" * 16 + "A" * 22, file="page.css")
        )
        assert set(answer.headers["allow"].split(", ")) - {"OPTIONS"} == {method.upper() for method in methods}, path


def test_it_has_every_error(served: Any) -> None:
    said = json.dumps(served["paths"])
    elsewhere = {Error.WRONG_METHOD}  # the answer to methods that are not in the document
    for error in set(Error) - elsewhere:
        assert f"- `{error.type}`: " in said, error


def test_it_has_every_status_of_the_page_for_people(served: Any) -> None:
    rows = re.findall(r"^\| (`(?:GET|PUT|POST|HEAD|DELETE) /.*)$", API.read_text(), re.MULTILINE)
    assert len(rows) > 10
    for row in rows:
        request, *answers = row.split(" | ")
        method, path = request.split("`")[1].split()
        for word in ("TOKEN", "NAME", "UPLOAD", "FILE"):
            path = path.replace(word, f"{{{word.lower()}}}")
        responses = served["paths"][path][method.lower()]
        assert set(re.findall(r"\b[2345]\d\d\b(?! s\b|\))", " ".join(answers))) <= {*responses["responses"]}, request


@schemathesis.serializer("application/partial-upload")
def _part(_: Any, value: Any) -> bytes:
    """Return the body of a part as schemathesis sends it: whatever it made up."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


schema = schemathesis.openapi.from_dict(document(OPERATIONS, Settings.model_validate(SETTINGS)))


@schema.parametrize()
@trying(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_schemathesis_finds_no_answer_that_is_not_in_it(node: Cluster, case: Any) -> None:
    # A real token instead of one that is made up; but what must be refused for its token must stay so.
    made_up = str((case.path_parameters or {}).get("token", ""))
    if re.fullmatch("[A-Za-z0-9]{30}|[A-Za-z0-9]{8}[rs][0-9a-f]{32}", made_up) and secrets.randbelow(4):
        case.path_parameters["token"] = node.token()
    answer = case.call_and_validate(base_url=node[0].url, timeout=30, excluded_checks=EXCLUDED)
    assert answer.status_code != 500
