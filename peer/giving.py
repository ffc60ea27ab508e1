"""Thank-yous between people."""

from __future__ import annotations

import secrets

from peer.acts import NONCE_BYTES, VALID_MS, own_account
from peer.client import Client
from protocol.documents import Transfer
from protocol.messages import Account


async def transfer(horde: Client, to: int, amount: int) -> Account:
    """Give thousandths of our account to another one; ours afterwards. What breaks off and is sent again by this very
    call moves kudos once."""
    await own_account(horde)
    nonce = secrets.token_bytes(NONCE_BYTES)
    await horde.present(Transfer(nonce=nonce, valid_until=horde.now() + VALID_MS, to=to, amount=amount))
    return await horde.account()
