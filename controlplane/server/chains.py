"""Whether the certificates of a file fit together: tried in a handshake with ourselves, as a client would.

Source: docs/adr/0053-a-chain-is-tried-before-it-is-used.md
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import Final

from controlplane.server.x509 import Certificate

# Of OpenSSL's verdicts those that are about issuers: a bad signature, none that fits, not an authority.
_NOT_ISSUED: Final = frozenset({7, 20, 24, 79})
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: dates are looked at elsewhere
_TURNS: Final = 4  # of a handshake; it takes two


def misfit(server: ssl.SSLContext, chain: Sequence[Certificate]) -> str:
    """Say which certificate of a chain leads nowhere, and what to do; '' if a client can follow all of them.

    A file is free to have them in another order, or one twice, as clients do not mind.

    Args:
        server: Has the chain and its key, and trusts nobody.
        chain: The certificates, the server's own first.
    """
    for at, issuer in enumerate(chain[1:], 1):
        if why := _refused(server, issuer):
            before = chain[at - 1]
            return (
                f"its chain does not fit together: certificate {at + 1}, {issuer.subject}, is not the issuer "
                f"of certificate {at}, {before.subject}, which names {before.issuer} ({why}); put the "
                "server's own certificate first, then the one that signed it, and so on, and no others"
            )
    return ""


def shortened(chain: Sequence[Certificate], before: Sequence[Certificate]) -> str:
    """Say what a chain lacks that the one before it had; '' if it is as long, or leads to a root.

    It ends where an issuer is missing, in whatever order it is; what is there twice counts once.
    """
    if len(set(chain)) >= len(set(before)) or any(each.self_issued for each in chain):
        return ""
    subjects = {each.subject for each in chain}
    last = next((each for each in chain if each.issuer not in subjects), chain[-1])
    had = next((each for each in before if each.subject == last.issuer), None)
    if had is not None and had.self_issued:
        return ""  # a root, which clients have themselves
    it = "it" if had is not None else f"{len(before)} certificates, this one {len(chain)}"
    return (
        f"the chain ends at its issuer {last.issuer}, which is not in the file; the one before had {it}: "
        "clients that trust only what is above it do not get in; put the whole chain into the file "
        "(fullchain.pem, not cert.pem)"
    )


def _refused(server: ssl.SSLContext, trusted: Certificate) -> str:
    """Return why a client that trusts one certificate would not follow a chain to it; '' if it would."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    context.load_verify_locations(cadata=trusted.der)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, other = context.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    try:
        for _ in range(_TURNS):
            for end in (client, other):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message if error.verify_code in _NOT_ISSUED else ""
    except ssl.SSLError:
        return ""  # about something else than the chain: it is not for us to judge
    return ""
