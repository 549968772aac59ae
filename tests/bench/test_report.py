"""How the harness summarizes figures: medians, ratios of pairs, verdicts, tables."""

import pytest

from tests.bench import goals, plots, report
from tests.bench.figures import percentiles
from tests.bench.goals import GOALS, TWO, Goal, number, paired, ratio
from tests.bench.targets import GO_PEER, LOCAL, PEER, PEER_BEHIND, SPREAD

#: Three rounds. In the second one, the machine was busy with other work.
RUNS = {
    TWO: [{"MB/s": 600.0, "fairness": 0.5}, {"MB/s": 200.0, "fairness": 0.9}, {"MB/s": 700.0, "fairness": 0.7}],
    PEER: [{"MB/s": 1000.0, "fairness": 0.1}, {"MB/s": 250.0, "fairness": 0.2}, {"MB/s": 1000.0, "fairness": 0.3}],
}
ABOUT = {
    "busy before, % of all cores": 3.0,
    "cpu": "a processor",
    "cores": 2,
    "memory GiB": 8,
    "Linux": "6.1",
    "Python": "3.13.1",
    "Redis": "8.0.0",
    "Node.js": "20.1.0",
    "curl": "8.1.0",
}


def test_a_ratio_is_the_median_of_the_ratios_of_runs_side_by_side() -> None:
    assert ratio(RUNS, TWO, "MB/s") == 0.7  # the median of 0.6, 0.8 and 0.7; the ratio of the medians is 0.6


def test_no_ratio_of_the_peer_itself_or_without_the_peer_or_to_zero() -> None:
    assert ratio(RUNS, PEER, "MB/s") is None
    assert ratio({TWO: RUNS[TWO]}, TWO, "MB/s") is None
    assert paired([{"MB/s": 1.0}], [{"MB/s": 0.0}], "MB/s") is None


def test_a_round_without_its_counterpart_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired(RUNS[TWO][:2], RUNS[PEER], "MB/s")


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles([number / 1000 for number in range(101)]) == pytest.approx((50, 99))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (0.123, "0.12"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (-0.5, "-0.50"),
    ],
)
def test_a_number_has_three_digits_or_more(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("goal", "value", "line"),
    [
        (Goal("m", "×", lambda _: None, 0.7, at_least=True), 0.7, ("≥ 0.7 ×", "0.70 ×", "reached")),
        (Goal("m", "×", lambda _: None, 0.7, at_least=True), 0.69, ("≥ 0.7 ×", "0.69 ×", "**not reached**")),
        (Goal("m", "ms", lambda _: None, 5), 4.9, ("≤ 5 ms", "4.90 ms", "reached")),
        (Goal("m", "ms", lambda _: None, 5), 5.1, ("≤ 5 ms", "5.10 ms", "**not reached**")),
        (Goal("m", "", lambda _: None), 33, ("", "33.0", "")),
    ],
)
def test_a_goal_is_reached_or_not_or_only_stated(goal: Goal, value: float, line: tuple[str, str, str]) -> None:
    assert (goal.to_reach, goal.measured(value), goal.verdict(value)) == line


def test_the_summary_has_only_what_was_measured() -> None:
    lines = report.summary({"10 streams": RUNS}).splitlines()
    assert lines[2:] == [
        "| 10, 50 and 200 at once: fairness (slowest over fastest), the least | ≥ 0.5 | 0.70 | reached |"
    ]


def test_throughput_at_200_is_compared_with_that_at_10_of_the_same_round() -> None:
    doubled = {target: [{**run, "MB/s": 2 * run["MB/s"]} for run in runs] for target, runs in RUNS.items()}
    (value,) = [
        goal.value({"10 streams": RUNS, "200 streams": doubled}) for goal in GOALS if "beside those" in goal.measure
    ]
    assert value == 2


def test_memory_is_flat_when_the_second_half_takes_no_more() -> None:
    halves = {"node MiB, first half": 8.0, "node MiB, second half": 8.5, "Redis MiB, first half": 2.0}
    runs = {TWO: [{**halves, "Redis MiB, second half": 2.25}]}
    (value,) = [goal.value({"long stream": runs}) for goal in GOALS if goal.measure.startswith("10 GiB")]
    assert value == 0.75


def test_the_table_has_medians_and_the_ratios_that_mean_something() -> None:
    assert report.table({"10 streams": RUNS, "start": {TWO: [{"s to ready": 1.5}]}}).splitlines() == [
        f"| | {TWO} | {PEER} |",
        "|---|---|---|",
        "| 10 streams: MB/s | 600 (0.70 ×) | 1,000 |",
        "| 10 streams: fairness | 0.70 | 0.20 |",
        "| start: s to ready | 1.50 |  |",
    ]


def test_the_readme_gets_the_summary_between_its_two_lines() -> None:
    page = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"
    new = report.into_readme(page, ABOUT, {"10 streams": RUNS})
    assert new.startswith("before\n<!-- bench -->\n| measure |")
    assert "old" not in new
    assert "a processor, 2 cores" in new
    assert new.endswith("\n<!-- /bench -->\nafter\n")
    assert report.into_readme(new, ABOUT, {"10 streams": RUNS}) == new
    with pytest.raises(ValueError, match="bench"):
        report.into_readme("without a place", ABOUT, {})


def test_there_are_colours_for_all_targets() -> None:
    assert {*plots.COLOURS} == {TWO, goals.ONE, goals.EMBEDDED, LOCAL, SPREAD, PEER, PEER_BEHIND, GO_PEER}
