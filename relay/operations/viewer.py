"""What a person who looks at the cluster may see and do.

The ids of tokens are public, but a name belongs to whoever has the token. So a stranger sees no names. The operator
sees everything.
"""

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Viewer:
    """What one viewer may see. `may_sign_in`: whether there is a secret that would show the viewer more.

    `key` is the secret with which the page of an operator signs what it offers to do; empty if it offers nothing.
    """

    names: bool = False
    may_sign_in: bool = False
    key: str = field(default="", repr=False)

    def signature(self, *, token: str, name: str, transfer_id: str) -> str:
        """Return what proves that this operator's page offered to cancel a transfer: 32 hex digits.

        A browser adds the operator's password to any request to the relay, whichever site's page has made it do that.
        No other site can know the signature.
        """
        said = f"cancel {token} {name} {transfer_id}"
        return hmac.digest(self.key.encode(), said.encode(), hashlib.sha256).hex()[:32]


STRANGER, OPERATOR = Viewer(), Viewer(names=True)
