"""`python -m relay`, the same as `relay`."""

from relay.cli.main import main

main()
