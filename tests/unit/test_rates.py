"""How rates are written, and under which address a client is counted."""

import pytest

from relay.rates import Rate, parse_rate
from relay.store.rates import counted_as


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("a}:b", "unknown"),
        ("192.0.2.1:80", "unknown"),
    ],
)
def test_counted_as(address: str, counted: str) -> None:
    assert counted_as(address) == counted


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", None),
        ("3/hour", Rate(3, 3600)),
        ("600/minute", Rate(600, 60)),
        ("10/second", Rate(10, 1)),
        ("600 per 2 hours", Rate(600, 7200)),
        ("600/2 hours", Rate(600, 7200)),
        (" 5 PER Day ", Rate(5, 86_400)),
        ("5/month", Rate(5, 2_592_000)),
        ("5 / 2years", Rate(5, 62_208_000)),
    ],
)
def test_rates(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["many", "0/minute", "5/0 minutes", "-1/minute", "5", "5/week", "5/minute; 9/hour", "٣/hour", "1.5/hour"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        parse_rate(text)
