"""How a peer knows that it speaks with the tracker of its link.

By the certificate that the link names; if it names none, by the authorities that this machine trusts, as a browser
does.
"""

from __future__ import annotations

import aiohttp

from protocol.links import Link


def tls_of(link: Link) -> aiohttp.Fingerprint | bool:
    """What aiohttp is given as `ssl` for everything at the link's address. Keep it: a connection is used again only
    for the same object."""
    return aiohttp.Fingerprint(link.certificate) if link.certificate else True


def other_certificate(link: Link) -> str:
    """What to say to people when the tracker shows another one."""
    return (
        f"{link.url} shows another certificate than the link names: it was replaced, or somebody stands in between; "
        "ask the operator for the link again"
    )
