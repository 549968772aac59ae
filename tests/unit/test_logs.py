"""A record of the log has what our forms, and `logging` itself, read of it."""

import logging
from typing import Any

import pytest

from relay.logs import _Record

FORM = logging.Formatter("%(asctime)s %(levelname)s %(levelno)s %(name)s %(msecs)03d %(message)s")


@pytest.mark.parametrize("args", [(), (1, "two"), ({"a": "b"},), ({},)])
def test_a_record_is_formatted_as_that_of_logging(args: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1795000000.1239)
    monkeypatch.setattr("time.time_ns", lambda: 1795000000_123900000)
    message = {0: "50 %", 2: "%s %s"}.get(len(args), "%(a)s" if args and args[0] else "%s")
    made = [kind("x", logging.INFO, "a/b.py", 7, message, args, None) for kind in (_Record, logging.LogRecord)]
    ours, theirs = (FORM.format(record) for record in made)
    assert ours == theirs
    assert repr(made[0])
