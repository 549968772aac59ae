"""The status page in its three forms, and what each viewer sees of it."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from relay.api.schemas import STATUS
from relay.cluster.progress import Progress, Taken
from relay.operations.cancelling import Offer
from relay.operations.chart import chart
from relay.operations.formatting import alarms, bars, duration, left, percent, size, speed
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


@pytest.mark.parametrize(
    ("delivered", "rate", "seconds", "words"),
    [
        (0, 0.0, 0.4, ("", "")),  # nothing is known at the start
        (1024, 512.0, 2.0, ("512 B/s", "6 s")),
        (1024, 0.0, 9.0, ("0 B/s", "")),
        (4095, 4096.0, 9.0, ("4.0 KiB/s", "1 s")),
        (4096, 4096.0, 9.0, ("4.0 KiB/s", "")),
        (5000, 4096.0, 9.0, ("4.0 KiB/s", "")),
        (0, 0.5, 9.0, ("0 B/s", "")),
    ],
)
def test_a_rate_and_the_time_left_are_shown_if_they_are_known(
    delivered: int, rate: float, seconds: float, words: tuple[str, str]
) -> None:
    transfer = replace(STREAM, delivered=delivered, rate=rate, seconds=seconds)
    assert (speed(transfer), left(transfer)) == words


def test_a_time_that_nobody_waits_for_has_no_figure() -> None:
    assert left(replace(STREAM, length=10**12, rate=3.0)) == "more than 30 d"
    assert left(replace(STREAM, length=None)) == ""
    assert left(replace(WAITING, left=-0.3)) == "gives up in 1 s"


@pytest.mark.parametrize(("share", "words"), [(None, ""), (0.0, "0%"), (0.999_999, "99%"), (1.0, "100%")])
def test_only_what_is_whole_is_100_percent(share: float | None, words: str) -> None:
    assert percent(share) == words


def test_what_the_downloaders_node_says_is_shown_of_what_streams() -> None:
    theirs = Taken(1000, 7)
    assert (STREAM.taken(theirs).delivered, STREAM.taken(theirs).rate) == (1000, 7)
    assert STREAM.taken(None) == STREAM
    assert WAITING.taken(theirs) == WAITING
    overview = Overview.of([NODE], [STREAM], [], 0, taken={STREAM.id: theirs})
    later = overview.updated(NODE, [replace(STREAM, delivered=1500)], seconds=1.0)
    assert [each.transfers[0].delivered for each in (overview, later)] == [1000, 1000]


def test_bars_are_as_high_as_the_numbers() -> None:
    assert bars([0, 1, 500, 1000]) == "▁▂▅█"
    assert bars([0, 0]) == "▁▁"
    assert chart([0, 1, 500, 1000]).path == "M10 32v-1h8v1zM20 32v-16h8v16zM30 32v-32h8v32z"
    assert chart([0] * 30).path == ""


def test_the_history_of_a_cluster_is_the_sum_and_names_those_who_are_silent() -> None:
    nodes = [NODE, NodeReport("old", alive=True), NodeReport("b", alive=True, history=(5, 10, 20, 30))]
    overview = Overview.of(nodes, [], [], 0)
    assert list(overview.history) == [0] * 26 + [5, 110, 20, 1054]
    assert overview.silent == ["old"]
    assert "(without old)" in as_text(overview, STRANGER)
    assert ", without old</small>" in as_html(overview, STRANGER, node="a", clock="")


def test_a_report_of_an_older_node_is_read() -> None:
    """Its heartbeat has none of the newer fields."""
    old = NodeReport.load("old", {"host": "h", "version": "0.1.0", "started": "5", "waiting": "2", "complete": "1"})
    assert (old.state, old.waiting, old.complete, old.history) == ("alive", 2, 1, None)
    assert old.uptime(65.0) == 60
    assert old.uptime(1.0) == 0, "its clock is ahead"


def test_every_form_says_that_a_node_drains_and_that_one_is_lost() -> None:
    nodes = [replace(NODE, is_draining=True), NodeReport("z", alive=False, age=7.2)]
    text, data, page = every_form(Overview.of(nodes, [], [], 0), STRANGER)
    assert re.search(r"a +draining .*\nz +lost", text)
    assert [(node["alive"], node["draining"]) for node in json.loads(data)["nodes"]] == [(True, True), (False, False)]
    assert '<span class="state draining">draining</span>' in page


def test_every_form_says_what_is_wrong_with_redis() -> None:
    evicting = replace(REDIS, policy="allkeys-lru", used=62 * 2**20)
    text, data, page = every_form(replace(OVERVIEW, servers=[evicting]), STRANGER)
    for line in alarms([evicting]):
        assert line in text
        assert line.replace("'", "&#39;") in page
    assert len(alarms([evicting])) == 2
    assert json.loads(data)["redis"] == [
        {"used": 62 * 2**20, "most": 64 * 2**20, "policy": "allkeys-lru", "evicts": True}
    ]
    assert alarms([REDIS, replace(REDIS, most=0)]) == []


def test_the_version_of_redis_is_for_operators() -> None:
    assert all("7.0.15" in form for form in every_form(OVERVIEW, OPERATOR))
    assert not any("7.0.15" in form for form in every_form(OVERVIEW, STRANGER))


@pytest.mark.parametrize("viewer", [STRANGER, OPERATOR])
def test_the_json_has_the_properties_that_the_document_says(viewer: Viewer) -> None:
    shown, properties = as_json(OVERVIEW, viewer), STATUS["application/json"]["schema"]["properties"]
    assert shown.keys() == properties.keys()
    for part in ("redis", "nodes", "transfers", "expiring"):
        items = properties[part]["items"]
        optional = set() if viewer.names else items["properties"].keys() - set(items["required"])
        for each in shown[part]:
            assert each.keys() == items["properties"].keys() - optional


def test_an_operator_is_offered_to_cancel_and_a_stranger_is_not() -> None:
    page = as_html(OVERVIEW, Viewer(names=True, key="a secret"), node="a", clock="")
    words = re.findall(r'name="which" value="([^"]*)"', page)
    assert [Offer.parse(word, "a secret") for word in words] == [
        Offer(TOKEN, STREAM.name, STREAM.id),
        Offer(TOKEN, WAITING.name, WAITING.id),
    ]
    assert "a secret" not in page
    for viewer in (STRANGER, OPERATOR, Viewer(may_sign_in=True)):
        assert "<form" not in as_html(OVERVIEW, viewer, node="a", clock="")


def test_an_offer_is_good_for_what_it_says_alone() -> None:
    word = Offer("PublicId", "name", "id").signed("a secret")
    assert Offer.parse(word, "a secret")
    changed = [word.replace("name", "nam"), word.replace("/id/", "/id2/"), word[:-1], word + "/", "", "é/é/é/é"]
    assert [Offer.parse(each, "a secret") for each in changed] == [None] * len(changed)
    assert Offer.parse(word, "another secret") is None


def test_a_page_of_many_transfers_stays_small() -> None:
    many = [replace(STREAM, id=f"{number:016}", name="x" * 60) for number in range(10_000)]
    overview = Overview.of([replace(NODE, uploading=10_000, waiting=0)], many, [TokenLife(TOKEN, 61.0, 2)] * 50, 10_000)
    page = as_html(overview, Viewer(names=True, key="a secret"), node="a", clock="")
    assert len(page) < 450_000
    assert f"{MAX_ROWS} of 10000" in page
