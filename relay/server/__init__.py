"""HTTP/1.1 on top of uvicorn: connections, the intake of request bodies, and the delivery of responses.

Begin with `connection` (one client's connection), then `delivery` (whether a client has received everything).

May import: the root modules.
"""
