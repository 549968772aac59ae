"""The address under which a client's requests are counted."""

import pytest

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
