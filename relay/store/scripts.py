"""The Lua scripts in `lua/`: one file for each verb, and files of shared functions whose names begin with `_`."""

import hashlib
from importlib.resources import files

#: The shared functions that are put before the script of a verb.
_SHARED = {
    "ages": ["_now", "_ages"],
    "claim": ["_now", "_late", "_known", "_smaller", "_use", "_facts", "_room", "_reserve"],
    "end": ["_words", "_last", "_delivered", "_mark"],
    "enrol": ["_now"],
    "interrupt": ["_last", "_delivered", "_mark"],
    "join": ["_now", "_late"],
    "leave": ["_last", "_delivered", "_mark"],
    "look": ["_now", "_late", "_known", "_smaller", "_words", "_use", "_facts", "_room"],
    "mint": ["_facts"],
    "reserve": ["_smaller", "_reserve"],
    "revoke": ["_known"],
    "return": ["_last", "_delivered", "_mark"],
    "roll": ["_now", "_ages"],
    "spend": ["_now"],
    "release": ["_now", "_late"],
    "touch": ["_now", "_last"],
    "unwant": ["_now", "_late"],
    "vouch": ["_now", "_late"],
}

#: The verbs that give something back: another side waits to be told, or a name is free afterwards. They are repeated
#: even if Redis says that repeating is useless, because nobody would do it later.
_INSIST = {"end", "interrupt", "leave", "release", "unwant"}


class Script:
    """A Lua script, and the digest by which Redis calls it once it has it."""

    def __init__(self, source: str, *, expires: bool = False, insists: bool = False) -> None:
        self.source = source
        #: Whether its last argument is the time at which its caller gives up, after which it does nothing.
        self.expires = expires
        #: Whether it is repeated after failures that repeating seldom mends.
        self.insists = insists
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def load_scripts() -> dict[str, Script]:
    """Return the scripts by verb."""
    folder = files("relay.store") / "lua"
    source_of = {
        item.name.removesuffix(".lua"): item.read_text() for item in folder.iterdir() if item.name.endswith(".lua")
    }
    return {
        verb: Script(
            "".join(source_of[name] for name in _SHARED.get(verb, [])) + source,
            expires="_late" in _SHARED.get(verb, []),
            insists=verb in _INSIST,
        )
        for verb, source in source_of.items()
        if not verb.startswith("_")
    }
