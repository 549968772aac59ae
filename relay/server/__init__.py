"""HTTP/1.1 on top of uvicorn: connections, the intake of request bodies, and the delivery of responses.

Begin with `connection` (one client's connection). An upload's body comes in through `intake`; `delivery` finds out
whether a download's client has received everything; `probe` finds out whether a silent client still lives. `protocol`
limits what a client may send, `framing` says where a body ends, and `discard` throws away what a client goes on sending
after its last response. `uvicorn_adapter` has the only modules that touch what is private in uvicorn.
In this folder, the client is always the HTTP client.

May import: the root modules.
"""
