"""TODO."""

import hashlib
from importlib.resources import files


class Script:
    """A Lua script, and how Redis calls it when it has it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def sources() -> dict[str, str]:
    """The scripts, by verb; those named here get the shared functions they use put before them."""
    folder = files("relay.store") / "lua"
    source_of = {
        item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir() if item.name.endswith(".lua")
    }
    shared = {
        "claim": ["_use", "_room"],
        "look": ["_use", "_room"],
        "end": ["_last", "_mark"],
        "touch": ["_last"],
    }
    return {
        verb: "".join(source_of[name] for name in shared.get(verb, [])) + source
        for verb, source in source_of.items()
        if not verb.startswith("_")
    }
