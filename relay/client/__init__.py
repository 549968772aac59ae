"""The client: `relay send` and `relay receive`, for people and scripts at a terminal. It talks HTTP with any relay.

Begin with `upload` (one file to the relay, through all that may break) and `download`; then `part` (how a file gets its
final name). What is decided without I/O is in `links`, `naming`, `answers` and `patience`.

May import: nothing of relay but the modules beside the folders, and none of those that start a server: a command must
begin at once, so starlette, uvicorn and redis are not loaded.
"""

import sys

# httpx imports its own command, with rich and pygments, if those are installed: 50 ms of each start. It does without.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
