"""What a person who looks at the cluster may see.

The ids of tokens are public, but a name belongs to whoever has the token. So a stranger sees no names. The operator
sees everything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Viewer:
    """What one viewer may see. `may_sign_in`: whether there is a secret that would show the viewer more."""

    names: bool = False
    may_sign_in: bool = False


STRANGER, OPERATOR = Viewer(), Viewer(names=True)
