"""The page with which a browser sends and receives files: static files, and how they are served.

Begin with `files` (what is served, and under which policy). The scripts are in `static/`: begin with `send.js` and
`receive.js`, and then `upload.js`, which brings a file to its end through every break of a connection.

May import: the root modules.
"""
