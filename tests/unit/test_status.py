"""The status page in its three forms, and what each viewer sees of it."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from relay.cluster.progress import Progress
from relay.operations.formatting import duration, size
from relay.operations.overview import MAX_ROWS, NodeReport, Overview, TokenLife
from relay.operations.status_html import as_html
from relay.operations.status_json import as_json
from relay.operations.status_text import as_text, fitted, transfer_lines
from relay.operations.viewer import OPERATOR, STRANGER, Viewer
from relay.states import State
from relay.store.servers import ServerFacts

TOKEN = "PublicId"
STREAM = Progress(
    id="0123456789abcdef",
    token=TOKEN,
    name="%3Cb%3Emy%20file",
    state=State.STREAMING,
    uploader="a",
    downloader="b",
    length=4096,
    delivered=1024,
    rate=512.0,
    seconds=2.0,
)
WAITING = replace(STREAM, id="waits", state=State.WAITING, downloader="", delivered=0, rate=0, seconds=90.0, left=210.0)
NODE = NodeReport(
    "a",
    alive=True,
    host="inner-host",
    version="1",
    waiting=1,
    streaming=1,
    uploading=1,
    rate_out=512.0,
    history=(100, 0, 1024),
    outcomes={"complete": 5, "uploader_gone": 2},
)
REDIS = ServerFacts((7, 0), "Redis 7.0.15", "noeviction", 32 * 2**20, 64 * 2**20)
OVERVIEW = Overview.of(
    [NODE, NodeReport("z", alive=False, age=7.2)],
    [WAITING, STREAM],
    [TokenLife(TOKEN, 61.0, 2)],
    1,
    servers=[REDIS],
)


def every_form(overview: Overview, viewer: Viewer) -> list[str]:
    page = as_html(overview, viewer, node="a", clock="00:00:00")
    return [as_text(overview, viewer), json.dumps(as_json(overview, viewer)), page]


def test_a_stranger_sees_ids_but_no_name_and_no_host() -> None:
    for page in every_form(OVERVIEW, STRANGER):
        assert TOKEN in page
        assert "my" not in page
        assert "inner-host" not in page


def test_the_operator_sees_everything() -> None:
    text, data, page = every_form(OVERVIEW, OPERATOR)
    for form in (text, data, page):
        assert TOKEN in form
    assert "%3Cb%3Emy%20file" in text, "a terminal gets nothing but plain characters"
    assert "<b>my file" in data
    assert "&lt;b&gt;my file" in page
    assert "<b>my" not in page


def test_what_streams_comes_first_and_counts_are_of_all() -> None:
    older = replace(STREAM, id="older", seconds=9.0)
    overview = Overview.of([NODE], [WAITING, STREAM, older], [], 7)
    assert [t.id for t in overview.transfers] == ["older", STREAM.id, "waits"]
    assert (overview.streaming, overview.waiting, overview.tokens, overview.rate) == (1, 1, 7, 512.0)


def test_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1060.0)
    overview = replace(OVERVIEW, nodes=[replace(OVERVIEW.nodes[0], started=1000), OVERVIEW.nodes[1]])
    assert as_text(overview, STRANGER).splitlines() == [
        "streaming 1  waiting 1  interrupted 0  tokens 1  nodes 1  delivering 512 B/s",
        "last 5 min  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▂▁█  1.1 KiB, at most 102 B/s",
        "ended  complete 5  uploader_gone 2",
        "Redis  memory 32.0 MiB of 64.0 MiB, 50%  maxmemory-policy noeviction",
        "",
        "TOKEN     STATE                   MOVED          RATE                    LEFT         FOR  UPLOADER  "
        "DOWNLOADER  ID",
        "PublicId  streaming  1.0 KiB of 4.0 KiB  25%  512 B/s                     6 s         2 s  a         "
        "b           0123456789abcdef",
        "PublicId  waiting               4.0 KiB             -  gives up in 3 min 30 s  1 min 30 s  a         "
        "-           waits",
        "",
        "NODE  STATE          UP  STREAMING  WAITING  INTERRUPTED     IN      OUT  COMPLETE  ENDED    AS OF  VERSION",
        "a     alive  1 min 00 s          1        1            0  0 B/s  512 B/s         5      7      now  1",
        "z     lost            -          0        0            0  0 B/s    0 B/s         0      0  7 s ago",
        "",
        "TOKEN     EXPIRES IN  USES",
        "PublicId  1 min 01 s     2",
    ]


def test_a_terminal_gets_what_it_has_room_for() -> None:
    many = [replace(STREAM, name=f"file-{number}", uploader="a" * 20, downloader="b" * 20) for number in range(30)]
    wide, narrow = (transfer_lines(many, OPERATOR, columns=columns) for columns in (200, 80))
    assert wide == transfer_lines(many, OPERATOR)
    assert narrow[:2] == [
        "NAME     STATE                   MOVED          RATE  LEFT  FOR  TOKEN",
        "file-0   streaming  1.0 KiB of 4.0 KiB  25%  512 B/s   6 s  2 s  PublicId",
    ]
    shown = fitted(narrow, 70, 24)
    assert (len(shown), shown[-1]) == (23, "and 9 more")
    assert shown[1] == "file-0   streaming  1.0 KiB of 4.0 KiB  25%  512 B/s   6 s  2 s  Publ…"
    assert fitted(narrow[:23], 80, 24) == narrow[:23]
    assert len(fitted(narrow, 1, 1)) == 1
    long = transfer_lines([WAITING, replace(STREAM, name="x" * 700)], OPERATOR, columns=110)
    assert [len(line) <= 110 for line in long] == [True] * 3
    assert "gives up in 3 min 30 s" in long[1]
    assert long[2].startswith("xxxxxxxxx")
    assert "…  streaming" in long[2]


def test_an_interrupted_transfer_says_how_far_it_is_and_how_long_it_waits() -> None:
    interrupted = replace(STREAM, state=State.INTERRUPTED, downloader="", rate=0.0, seconds=30.0, left=270.0, leg=3)
    overview = Overview.of([replace(NODE, interrupted=1)], [WAITING, interrupted, STREAM], [], 1)
    assert [t.state for t in overview.transfers] == [State.STREAMING, State.INTERRUPTED, State.WAITING]
    text, data, page = every_form(overview, STRANGER)
    assert re.search(r"interrupted  1\.0 KiB of 4\.0 KiB  25% +-  gives up in 4 min 30 s +30 s ", text)
    row = json.loads(data)["transfers"][1]
    assert (row["state"], row["left"], row["leg"]) == ("interrupted", 270.0, 3)
    assert '<span class="state interrupted">interrupted</span>' in page
    assert '<td class="fact num left">gives up in 4 min 30 s</td>' in page


def test_every_form_says_how_old_a_nodes_row_is() -> None:
    text, data, page = every_form(OVERVIEW, STRANGER)
    assert "7 s ago" in text
    assert [node["age"] for node in json.loads(data)["nodes"]] == [0, 7.2]
    assert 'data-label="As of"><div>now</div></td>' in page
    assert 'data-label="As of"><div>7 s ago</div></td>' in page


def test_what_a_node_knows_of_itself_replaces_what_it_reported() -> None:
    theirs = replace(STREAM, id="theirs", uploader="z")
    reported = Overview.of([NODE, NodeReport("z", alive=True, age=1.5, uploading=1)], [WAITING, STREAM, theirs], [], 7)
    now = reported.updated(replace(NODE, waiting=0), [replace(STREAM, delivered=4096)], seconds=0.5)
    assert [(t.id, t.delivered) for t in now.transfers] == [(STREAM.id, 4096), ("theirs", 1024)]
    assert [(node.node, node.age) for node in now.nodes] == [("a", 0.0), ("z", 2.0)]
    assert (now.streaming, now.waiting, now.tokens) == (2, 0, 7)


def test_a_node_that_redis_does_not_know_yet_shows_itself() -> None:
    now = Overview.of([], [], [], 0).updated(NODE, [STREAM], seconds=0.0)
    assert (now.nodes, now.transfers) == ([NODE], [STREAM])


def test_a_page_is_bounded_and_says_how_many_there_are() -> None:
    many = [replace(WAITING, id=f"{i}", seconds=float(i)) for i in range(MAX_ROWS + 50)]
    overview = Overview.of([replace(NODE, waiting=10_000, uploading=0)], many, [TokenLife(TOKEN, 61.0, 2)], 500)
    text, data, page = every_form(overview, STRANGER)
    assert "and 9800 more" in text
    assert "and 499 more" in text
    assert len(json.loads(data)["transfers"]) == MAX_ROWS
    assert f"<small>{MAX_ROWS} of 10000</small>" in page
    assert page.count('data-label="From → to"') == MAX_ROWS


def test_an_empty_cluster_says_so() -> None:
    text, data, page = every_form(Overview.of([], [], [], 0), STRANGER)
    assert text.startswith("streaming 0  waiting 0  interrupted 0  tokens 0")
    assert json.loads(data)["transfers"] == []
    assert "Nobody is transferring anything." in page


@pytest.mark.parametrize("viewer", [STRANGER, OPERATOR, Viewer(may_sign_in=True)])
def test_the_page_is_well_formed_and_has_nothing_inline(viewer: Viewer) -> None:
    open_elements: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert not {name for name, _ in attributes if name == "style" or name.startswith("on")}
            if tag not in ("meta", "link", "input", "path"):
                open_elements.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag != "path":
                assert open_elements.pop() == tag

    parser = Parser()
    parser.feed(as_html(OVERVIEW, viewer, node="a", clock="00:00:00"))
    parser.close()
    assert open_elements == []


def test_reports_survive_redis() -> None:
    assert Progress.load(STREAM.id, STREAM.dump()) == STREAM


@pytest.mark.parametrize(("length", "delivered", "share"), [(None, 5, None), (10, 5, 0.5), (10, 20, 1.0), (0, 0, 1.0)])
def test_share(length: int | None, delivered: int, share: float | None) -> None:
    assert replace(STREAM, length=length, delivered=delivered).share == share


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1023_999, "1000.0 KiB"),
        (1024_000, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_size(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (26 * 3600, "1 d 2 h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words
