"""The HTTP API: routes, handlers, errors as answers, download responses, and the OpenAPI document.

Begin with `exchange` (one request and its answer), then `transfers` (the handlers of uploads and downloads).

May import: `operations`, `transfer`, `store`, `server` and the root modules.
"""
