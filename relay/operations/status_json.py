"""The status page as JSON. Times are in seconds, sizes in bytes, rates in bytes a second."""

from typing import Any
from urllib.parse import unquote

from relay.cluster.progress import Progress
from relay.operations.overview import NodeReport, Overview, TokenLife
from relay.operations.viewer import Viewer


def as_json(overview: Overview, viewer: Viewer) -> dict[str, Any]:
    """Return the whole page."""
    return {
        "streaming": overview.streaming,
        "waiting": overview.waiting,
        "interrupted": overview.interrupted,
        "tokens": overview.tokens,
        "rate": overview.rate,
        "nodes": [node_json(node, viewer) for node in overview.nodes],
        "transfers": [transfer_json(transfer, viewer) for transfer in overview.shown],
        "expiring": [token_json(life) for life in overview.lives],
    }


def node_json(node: NodeReport, viewer: Viewer) -> dict[str, Any]:
    """Return one node."""
    shown = {
        "node": node.node,
        "alive": node.alive,
        "age": round(node.age, 1),
        "version": node.version,
        "started": node.started,
        "waiting": node.waiting,
        "interrupted": node.interrupted,
        "streaming": node.streaming,
        "rate_in": node.rate_in,
        "rate_out": node.rate_out,
        "ended": node.ended,
        "complete": node.complete,
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
        "left": transfer.left,
        "leg": transfer.leg,
    }
    return shown | ({"name": unquote(transfer.name)} if viewer.names else {})


def token_json(life: TokenLife) -> dict[str, Any]:
    """Return one token."""
    return {"token": life.token, "expires_in": int(life.seconds), "uses": life.uses}
