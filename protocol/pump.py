"""What both kinds of relay do alike with the ends that come: wait for them, and move what one says to the other.

The sockets are the relay's own: here is only waiting, over whatever has the methods of `protocol.relay.End`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress

from protocol.documents import RELAY_CHALLENGE_BYTES
from protocol.errors import OutOfTurn, Refusal, TooSlow
from protocol.relay import Admitted, End, Rooms, Stay

#: Who has connected says who it is within so many seconds.
ENTRY_S = 10.0
#: How often is looked whether an end has been waited for too long.
LOOK_S = 1.0


async def attend(
    end: End, rooms: Rooms, household: str, admit: Callable[[bytes, bytes], Admitted], clock: Callable[[], int]
) -> None:
    """One end's connection from the challenge to its end; raises `Refusal` if there is a reason that it should hear.

    admit: who comes in with an entry and the challenge that it was to be signed for, as `check_entry` says.
    """
    with suppress(ConnectionError):
        challenge = secrets.token_bytes(RELAY_CHALLENGE_BYTES)
        await end.write(challenge)
        try:
            async with asyncio.timeout(ENTRY_S):
                raw = await end.read()
        except TimeoutError:
            raise TooSlow(f"no entry within {ENTRY_S:.0f} s: show the ticket at once") from None
        if raw:
            await _stay(rooms.enter(admit(raw, challenge), end, household, clock()), rooms, clock)


async def _stay(stay: Stay, rooms: Rooms, clock: Callable[[], int]) -> None:
    """Pass on what this end says until one of the two goes; raises `Refusal`."""
    met: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        for future, has_come in ((met, stay.other is not None), (over, stay.is_over)):
            if has_come and not future.done():
                future.set_result(None)

    stay.wake = wake
    wake()
    giving = asyncio.create_task(_give(stay, met, rooms, clock), name="relay")
    why: Refusal | None = None
    try:
        while not giving.done() and not over.done():
            await asyncio.wait((giving, over), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            stay.check(clock())
        if stay.is_over and stay.why is not None:
            raise stay.why
        if giving.done():
            giving.result()
    except Refusal as refusal:
        why = refusal
        raise
    finally:
        rooms.leave(stay, why)
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)


async def _read(end: End) -> bytes:
    try:
        return await end.read()
    except ConnectionError:
        return b""


async def _give(stay: Stay, met: asyncio.Future[None], rooms: Rooms, clock: Callable[[], int]) -> None:
    """Tell the other end that this one is there, then whatever this one says."""
    first = asyncio.create_task(_read(stay.end))
    try:
        await asyncio.wait((first, met), return_when=asyncio.FIRST_COMPLETED)
        if stay.other is None:
            if first.result():
                raise OutOfTurn("bytes before the other side was there: wait for the empty message")
            return
        other = stay.other.end
        await other.write(b"")
        data = await first
        meter = rooms.meter(stay.admitted)
        while data:
            stay.heard = clock()
            if wait := meter.take(len(data), stay.heard):
                await asyncio.sleep(wait / 1000)
            stay.giving_since = clock()
            await other.write(data)
            stay.giving_since = 0
            rooms.carried += len(data)
            data = await stay.end.read()
    finally:
        first.cancel()
