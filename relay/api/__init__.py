"""The HTTP API: its table of routes, the handlers, how errors are answered, and the OpenAPI document.

Begin with `routes` (every path and method), then `exchange` (one request and its answer), then `transfers` (uploads
and downloads).

May import: `page`, `operations`, `transfer`, `store`, `server` and the root modules.
"""
