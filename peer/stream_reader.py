"""The requester's end of the direct stream: HTTPS to a worker whose certificate is known beforehand, frames out.

Which way the bytes go is found out by a race (`peer.paths`). A connection that was made once serves again, unless it
is relayed: a relay is for one attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict

from peer.paths.addresses import Address, BadAddress, is_private, parse_address, resolver
from peer.paths.choice import TIMING, Path, Timing
from peer.paths.connector import Connector
from peer.paths.race import Ground, Guide, NoPath, Race, Taken
from peer.paths.relay_end import RelayEnds
from protocol import frames
from protocol.documents import PeerRecord, open_document
from protocol.envelope import Envelope
from protocol.errors import Malformed, Refusal, TooLarge

MEDIA_TYPE = "application/x-potluck-stream"

#: For each connection, and again for its TLS handshake.
CONNECT_SECONDS = 3.0
#: From the end of the handshake to the worker's answer; the opening is on its way in that time.
ANSWER_SECONDS = 10.0
#: So long over a connection that was kept, which may have ended without a word.
KEPT_SECONDS = 4.0
#: Bytes a second of an opening for which an answer is waited for longer, where another path may bring it.
SLOW_RATE = 50_000
#: Without any frame, not even a sign of life, for so long the stream counts as cut.
SILENCE_SECONDS = 10.0
#: So long a connection that is not used is kept; a worker keeps it longer.
IDLE_SECONDS = 5.0
#: A worker ends the response right behind the last frame; a connection that it leaves open longer is not used again.
END_SECONDS = 1.0

MAX_ERROR_BYTES = 64 * 1024
MAX_KEPT = 1024
READ_BYTES = 256 * 1024


class StreamBroken(Exception):
    """The stream could not be opened, or ended too early. reason: a code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class BadRecord(Exception):
    """A peer record that leads nowhere."""


@dataclass(frozen=True)
class Worker:
    """Where a worker is reached, checked: its key, the certificate that answers there, its addresses, best first.

    none_because: a code, why there is no address that can be used; others can still lead us to it.
    """

    key: bytes
    version: int
    certificate: bytes
    addresses: tuple[Address, ...]
    none_because: str = "no_address"


@dataclass(frozen=True)
class Answered:
    """The worker answered over this path: the first time, or over a better one. reason: why this path."""

    path: Path
    reason: str


def worker_of(envelope: Envelope, *, private_too: bool) -> Worker:
    """The worker that a peer record (context and signature checked) speaks of. Private addresses are left out unless
    the horde itself is on one, for they would lead into the requester's own network. Raises `BadRecord`."""
    record = open_document(envelope, PeerRecord)
    try:
        addresses = tuple(parse_address(text) for text in record.addresses)
    except BadAddress as error:
        raise BadRecord(f"a peer record with what is no address: {error}") from error
    allowed = tuple(address for address in addresses if private_too or not is_private(address.host))
    none_because = "private_address" if addresses else "no_address"
    return Worker(envelope.key, record.version, record.certificate, allowed, none_because)


class StreamReader:
    """Opens streams. Whoever opens it closes it: use it as an async context manager.

    private_too: private addresses are followed, for the horde is on one. relays: by which relayed paths go, if any may.
    """

    def __init__(
        self,
        *,
        private_too: bool,
        relays: RelayEnds | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        timing: Timing = TIMING,
    ) -> None:
        self.private_too = private_too
        self.silence_seconds = silence_seconds
        self._relays = relays
        self._timing = timing
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._kept: deque[_Kept] = deque()
        self._session: aiohttp.ClientSession | None = None
        self._ground: Ground | None = None

    async def __aenter__(self) -> StreamReader:
        connector = Connector(IDLE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_read=self.silence_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=CIMultiDict({"Accept-Encoding": "identity"}),
            read_bufsize=READ_BYTES,
            auto_decompress=False,
        )
        names = resolver(private_too=self.private_too)
        self._ground = Ground(
            connector, self._relays, names, self._connect_seconds, self.private_too, timing=self._timing
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None and self._ground is not None:
            self._ground.connector.drop_all()
            await self._session.close()

    async def read(
        self, worker: Worker, body: bytes, after: int, guide: Guide | None = None, again: bytes = b""
    ) -> AsyncGenerator[frames.Frame | Answered, None]:
        """Open the stream and yield `Answered` once the worker answered, then its frames, `Final` last; `Answered`
        again whenever a better path took over. Ends with `StreamBroken` in every other case; its reason is the worker's
        own code if it refused the opening.

        guide: helps to find a path. again: the body with which the same stream is opened over a better path, `body` if
        that serves.
        """
        assert self._ground is not None  # noqa: S101
        async with contextlib.AsyncExitStack() as stack:
            reading = None
            if guide is None or not guide.relays_only:
                reading = await self._open_kept(worker, body, after)
            if reading is None:
                race = Race(worker.addresses, worker.none_because, worker.certificate, self._ground, guide)
                await stack.enter_async_context(race)
                taken, response = await self._open_first(race, body, after)
                reading = _Reading(self, race, response, taken, after, again or body)
            frames_of_it = await stack.enter_async_context(contextlib.aclosing(reading.read()))
            async for item in frames_of_it:
                yield item
            if reading.taken.path is not Path.RELAYED:
                self._keep(worker.certificate, reading.taken)

    async def _open_first(self, race: Race, body: bytes, after: int) -> tuple[Taken, aiohttp.ClientResponse]:
        """The worker's answer over the first path that brings one: one that stands may end before, or be held up by
        whoever passes the bytes on. Raises `StreamBroken`."""
        try:
            taken = await race.first()
            while True:
                most = race.half_seconds if taken.path is Path.RELAYED else None
                try:
                    return taken, await self.open(taken, body, after, most)
                except StreamBroken as error:
                    if not isinstance(error.__cause__, aiohttp.ClientError | OSError):
                        raise
                    taken = await race.instead(taken, error.reason, str(error))
        except NoPath as error:
            raise StreamBroken(error.reason, str(error)) from error

    async def open(self, taken: Taken, body: bytes, after: int, most: float | None = None) -> aiohttp.ClientResponse:
        """The worker's answer to an opening over this path; raises `StreamBroken`. most: so many seconds are enough for
        a small one, since it may come over another path."""
        assert self._session is not None  # noqa: S101
        seconds = self._answer_seconds
        if most is not None:
            seconds = min(seconds, most + len(body) / SLOW_RATE)
        try:
            # The time-outs of aiohttp begin anew with every byte, also of a head that never ends.
            async with asyncio.timeout(seconds):
                # Not https: what is called so stands already, and is TLS.
                response = await self._session.post(
                    f"http://{taken.name}/stream",
                    params={"after": str(after)} if after >= 0 else {},
                    data=body,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
            reason = "timeout" if isinstance(error, TimeoutError) else "no_connection"
            text = f"{taken.reason}: {str(error) or 'no answer in time'}"
            raise StreamBroken(reason, text) from error
        if response.status != 200:
            async with response:
                raise await _refusal(response)
        return response

    def doubt(self, taken: Taken) -> None:
        """A stream has broken over this path."""
        assert self._ground is not None  # noqa: S101
        self._ground.doubt(taken.relay)

    async def _open_kept(self, worker: Worker, body: bytes, after: int) -> _Reading | None:
        """Over a connection that served before, if there is one."""
        while (taken := self._take_kept(worker.certificate)) is not None:
            try:
                response = await self.open(taken, body, after, KEPT_SECONDS)
            except StreamBroken as error:
                # It may have ended meanwhile, also without a word where our address is another one by now; an opening
                # that was lost with it does no harm to the next one.
                if not isinstance(error.__cause__, aiohttp.ClientError | OSError):
                    raise
                if isinstance(error.__cause__, TimeoutError):
                    return None  # no time for others that may have ended in the same way
            else:
                return _Reading(self, None, response, taken, after, body)
        return None

    def _keep(self, certificate: bytes, taken: Taken) -> None:
        now = asyncio.get_running_loop().time()
        while self._kept and (len(self._kept) >= MAX_KEPT or self._kept[0].since < now - IDLE_SECONDS):
            self._kept.popleft()
        self._kept.append(_Kept(certificate, taken, now))

    def _take_kept(self, certificate: bytes) -> Taken | None:
        for kept in reversed(self._kept):  # the one that was used last has ended least likely
            if kept.certificate == certificate:
                self._kept.remove(kept)
                return kept.taken
        return None


@dataclass(frozen=True)
class _Kept:
    """A connection that can serve again. certificate: whose; since: on the loop's clock."""

    certificate: bytes
    taken: Taken
    since: float


class _Reading:
    """One stream, over one path after the other, each better than the one before: every numbered frame once.

    taken: the path that is read from. again: the body that opens the same stream once more.
    """

    def __init__(
        self,
        streams: StreamReader,
        race: Race | None,
        response: aiohttp.ClientResponse,
        taken: Taken,
        after: int,
        again: bytes,
    ) -> None:
        self.taken = taken
        self._streams = streams
        self._race = race
        self._response = response
        self._last = after
        self._again = again
        self._skip = -1
        self._opening: asyncio.Task[tuple[Taken, aiohttp.ClientResponse] | None] | None = None
        self._waiting: asyncio.Timeout | None = None
        if race is not None:
            race.on_better = self._open_better
            self._open_better()

    async def read(self) -> AsyncGenerator[frames.Frame | Answered, None]:
        """As `StreamReader.read`."""
        try:
            yield Answered(self.taken.path, self.taken.reason)
            while True:
                async with contextlib.aclosing(self._read_on()) as here:
                    async for frame in here:
                        yield frame
                        if isinstance(frame, frames.Final):
                            await _to_the_end(self._response)
                            return
                if not await self._take_over():
                    self._streams.doubt(self.taken)
                    raise StreamBroken("cut", "the stream ended before the result was whole")
                yield Answered(self.taken.path, self.taken.reason)
        finally:
            await self._end()

    async def _read_on(self) -> AsyncGenerator[frames.Frame, None]:
        """Frames of the present path until it ends, or a better one can take over."""
        reader = frames.FrameReader()
        clock, silence = asyncio.get_running_loop().time, self._streams.silence_seconds
        silent_at = clock() + silence
        broken: StreamBroken
        try:
            # Bytes alone are no sign of life: frames are.
            while data := await self._read_before(silent_at):
                for frame in reader.feed(data):
                    if self._is_new(frame):
                        yield frame
                    silent_at = clock() + silence
                if self._can_take_over:
                    return
            return
        except (Malformed, TooLarge) as error:
            raise StreamBroken("malformed", str(error)) from error
        except TimeoutError:
            if self._can_take_over:
                return
            broken = StreamBroken("silent", f"no sign of life from the worker for {silence:g} seconds")
        except (aiohttp.ClientError, OSError) as error:
            broken = StreamBroken("cut", f"the stream was cut: {error}")
        self._streams.doubt(self.taken)
        if self._opening is None or await asyncio.shield(self._opening) is None:
            raise broken

    async def _read_before(self, moment: float) -> bytes:
        """What has come, nothing at the end; raises `TimeoutError` at this moment of the loop's clock, and as soon as a
        better path can take over."""
        async with asyncio.timeout_at(
            moment
        ) as self._waiting:  # and not `wait_for`, which starts a task for every read
            return await self._response.content.readany()

    def _is_new(self, frame: frames.Frame) -> bool:
        """Whether no other path has brought this frame."""
        if not isinstance(frame, frames.Numbered):
            return True
        if frame.number <= self._skip:
            return False
        self._last = max(self._last, frame.number)
        return True

    # Better paths

    def _open_better(self) -> None:
        """The race has a better path: open the stream there too, and read on here meanwhile."""
        if self._race is None or (self._opening is not None and not self._opening.done()):
            return
        if (taken := self._race.take_better()) is not None:
            self._opening = asyncio.get_running_loop().create_task(self._open(taken))
            self._opening.add_done_callback(self._opened)

    async def _open(self, taken: Taken) -> tuple[Taken, aiohttp.ClientResponse] | None:
        try:
            return taken, await self._streams.open(taken, self._again, self._last)
        except StreamBroken:
            return None  # it was not better after all

    def _opened(self, opening: asyncio.Task[tuple[Taken, aiohttp.ClientResponse] | None]) -> None:
        if self._can_take_over and self._waiting is not None:
            with contextlib.suppress(RuntimeError):  # nobody waits just now, and who reads on looks for itself
                self._waiting.reschedule(0)
        elif not opening.cancelled():
            self._open_better()

    @property
    def _can_take_over(self) -> bool:
        opening = self._opening
        return opening is not None and opening.done() and not opening.cancelled() and opening.result() is not None

    async def _take_over(self) -> bool:
        """Read from the better path from now on, if it stands."""
        opened = await asyncio.shield(self._opening) if self._opening is not None else None
        if opened is None:
            return False
        self._response.close()
        self.taken, self._response = opened
        self._opening = None
        self._skip = self._last
        self._open_better()
        return True

    async def _end(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            for outcome in await asyncio.gather(self._opening, return_exceptions=True):
                if isinstance(outcome, tuple):
                    outcome[1].close()
        self._response.close()


async def _refusal(response: aiohttp.ClientResponse) -> StreamBroken:
    """What a worker that refused the opening says about it."""
    plain = StreamBroken("refused", f"the worker answered with HTTP status {response.status}")
    try:
        raw = await response.content.read(MAX_ERROR_BYTES)
        said = list(frames.FrameReader().feed(raw))
    except (Refusal, aiohttp.ClientError, OSError):
        return plain
    match said:
        case [frames.Failed(code=code, text=text)]:
            return StreamBroken(code[:40] or plain.reason, text[:2000] or str(plain))
        case _:
            return plain


async def _to_the_end(response: aiohttp.ClientResponse) -> None:
    """Wait for the end of the response, so that its connection is free for the next one."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(END_SECONDS):
            await response.content.read(1)
