"""The page with which a browser sends and receives files: static files, and how they are served.

Begin with `files` (what is served, and under which policy). The scripts are in `static/`: begin with `send.js` and
`receive.js`, and then `upload.js`, which brings a file to its end through every break of a connection.

The page is served as it is written, without a build step. `.ci/page` checks it, with tools from npm: tsc for the types
in the scripts' comments (`jsconfig.json`), biome for lint and format (`biome.json`). `.ci/page --write` formats.

May import: the root modules.
"""
