"""The status page as JSON. Times are in seconds, sizes in bytes, rates in bytes a second."""

import time
from typing import Any
from urllib.parse import unquote

from relay.cluster.progress import Progress
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.operations.viewer import Viewer
from relay.store.servers import ServerFacts


def as_json(overview: Overview, viewer: Viewer) -> dict[str, Any]:
    """Return the whole page."""
    return {
        "streaming": overview.streaming,
        "waiting": overview.waiting,
        "interrupted": overview.interrupted,
        "tokens": overview.tokens,
        "rate": overview.rate,
        "history": list(overview.history),
        "outcomes": overview.outcomes,
        "redis": None if overview.servers is None else [server_json(each, viewer) for each in overview.servers],
        "nodes": [node_json(node, viewer) for node in overview.nodes],
        "transfers": [transfer_json(transfer, viewer) for transfer in overview.shown],
        "expiring": [token_json(life) for life in overview.lives],
    }


def node_json(node: NodeReport, viewer: Viewer) -> dict[str, Any]:
    """Return one node."""
    shown = {
        "node": node.node,
        "alive": node.alive,
        "draining": node.is_draining,
        "age": round(node.age, 1),
        "version": node.version,
        "started": node.started,
        "uptime": None if (uptime := node.uptime(time.time())) is None else round(uptime),
        "waiting": node.waiting,
        "interrupted": node.interrupted,
        "streaming": node.streaming,
        "rate_in": node.rate_in,
        "rate_out": node.rate_out,
        "ended": node.ended,
        "complete": node.complete,
        "outcomes": dict(node.outcomes),
    }
    return shown | ({"host": node.host} if viewer.names else {})


def transfer_json(transfer: Progress, viewer: Viewer) -> dict[str, Any]:
    """Return one transfer."""
    shown = {
        "id": transfer.id,
        "state": transfer.state,
        "token": transfer.token,
        "uploader": transfer.uploader,
        "downloader": transfer.downloader or None,
        "length": transfer.length,
        "delivered": transfer.delivered,
        "rate": transfer.rate,
        "seconds": transfer.seconds,
        "remaining": None if transfer.remaining is None else round(transfer.remaining, 1),
        "left": transfer.left,
        "leg": transfer.leg,
    }
    return shown | ({"name": unquote(transfer.name)} if viewer.names else {})


def server_json(server: ServerFacts, viewer: Viewer) -> dict[str, Any]:
    """Return one server of Redis. What it runs is for operators only."""
    shown = {"used": server.used, "most": server.most, "policy": server.policy, "evicts": server.evicts}
    return shown | ({"version": server.shown} if viewer.names else {})


def token_json(life: TokenLife) -> dict[str, Any]:
    """Return one token."""
    return {"token": life.token, "expires_in": int(life.seconds), "uses": life.uses}
