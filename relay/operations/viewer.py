"""What a person who looks at the cluster may see and do.

The ids of tokens are public, but a name belongs to whoever has the token. So a stranger sees no names. The operator
sees everything.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Viewer:
    """What one viewer may see. `may_sign_in`: whether there is a secret that would show the viewer more.

    `key` is the secret with which an operator's page signs what it offers to do; empty if it offers nothing.
    """

    names: bool = False
    may_sign_in: bool = False
    key: str = field(default="", repr=False)


STRANGER, OPERATOR = Viewer(), Viewer(names=True)
