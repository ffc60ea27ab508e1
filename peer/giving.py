"""Thank-yous between people."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from peer.acts import NONCE_BYTES, VALID_MS, own_account
from peer.client import Client
from peer.events import Refused
from peer.home import write_file
from protocol.documents import Transfer, open_document, parse_document, sign
from protocol.envelope import Envelope
from protocol.errors import Refusal
from protocol.messages import Account


@dataclass(frozen=True)
class Given:
    """A transfer that was made. account: ours afterwards. again: it is one that had been sent before, unanswered."""

    account: Account
    again: bool = False


async def transfer(horde: Client, to: int, amount: int, unanswered: Path | None = None) -> Given:
    """Give thousandths of our account to another one. What breaks off and is sent again moves kudos once.

    unanswered: a file that holds a transfer from before it is sent until it is answered. If it holds one of the same
    amount to the same account that can still be taken in, that one is sent again, and no second one.
    """
    await own_account(horde)
    envelope = _sent_before(horde, to, amount, unanswered)
    again = envelope is not None
    if envelope is None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        said = Transfer(nonce=nonce, valid_until=horde.now() + VALID_MS, to=to, amount=amount)
        envelope = sign(said, horde.key, horde.link.root)
        if unanswered is not None:
            write_file(unanswered, envelope.raw)
    try:
        await horde.hand_over(envelope)
    except Refused:
        _forget(unanswered)
        raise
    _forget(unanswered)
    return Given(await horde.account(), again)


def _sent_before(horde: Client, to: int, amount: int, unanswered: Path | None) -> Envelope | None:
    """The transfer that the file holds, if it is this very one."""
    try:
        envelope = parse_document(unanswered.read_bytes(), Transfer) if unanswered is not None else None
    except (OSError, Refusal):
        return None
    if envelope is None or envelope.key != horde.key.public:
        return None
    said = open_document(envelope, Transfer)
    is_this = (said.to, said.amount) == (to, amount) and said.valid_until > horde.now()
    return envelope if is_this else None


def _forget(unanswered: Path | None) -> None:
    if unanswered is not None:
        unanswered.unlink(missing_ok=True)
