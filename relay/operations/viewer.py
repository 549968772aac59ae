"""What a person who looks at the cluster may see.

Tokens are secrets, and a name belongs to whoever has its token. A stranger therefore sees only the first four
characters of a token, by which its owner recognises it, and no names. The operator sees everything.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Viewer:
    """What one viewer may see. `may_sign_in`: whether there is a secret that would show the viewer more."""

    names: bool = False
    whole_tokens: bool = False
    may_sign_in: bool = False

    def token(self, token: str) -> str:
        """Return the token, or as much of it as this viewer may see."""
        return token if self.whole_tokens else f"{token[:4]}…"


STRANGER, OPERATOR = Viewer(), Viewer(names=True, whole_tokens=True)
