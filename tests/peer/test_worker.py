"""A whole worker over real sockets: engines, spools, streams, and a tracker that does what each test needs."""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from peer.connection import Backoff, CannotJoin
from peer.engines.base import ArtifactMade, Done, Engine, EngineError, Event, PreviewMade, StepsDone, Task, TextMade
from peer.engines.process import ProcessEngine
from peer.engines.spec import EngineSpec
from peer.limits import Limits, PeopleTable
from peer.news import News
from peer.spool import Spool
from peer.worker import Settings, Worker
from protocol import codec
from protocol.digests import Artifact, output_digest
from protocol.documents import Lease, PeerRecord, Receipt, sign
from protocol.envelope import Envelope
from protocol.frames import Chunk, Failed, Final, Frame, FrameReader, OpenBody, Preview, Progressed, Start, Text
from protocol.messages import (
    Account,
    Announce,
    Held,
    Offer,
    Progress,
    Refused,
    Register,
    Report,
    Taken,
    Withdrawn,
)
from tests.support.builders import (
    IMAGE_MODEL,
    JOB_KEY,
    MINUTE,
    NOW,
    TEXT_MODEL,
    WORKER,
    a_handle,
    a_lease,
    a_private_part,
    a_public_part,
    a_request,
    a_settlement,
    a_text_work,
    an_image_work,
    an_opening,
    but,
    signed,
)
from tests.support.scripted_tracker import ScriptedTracker

PROMPT = b"a small red circle on blue"
IMAGES = Offer(kind="image", model=IMAGE_MODEL, engine="pictures 1", max_pixels=512 * 512, max_steps=50)
TEXTS = Offer(kind="text", model=TEXT_MODEL, engine="texts 1", max_tokens=100, max_context=4096, continues=True)
IMAGE_LEASE = a_lease()
TEXT_LEASE = a_lease(a_request(a_public_part(a_text_work(max_tokens=20))), job=a_handle(1))


class PuppetEngine(Engine):
    """Does what a test puts into `events`; `tasks` gets what it was asked for. An `EngineError` is raised."""

    def __init__(self, *offers: Offer) -> None:
        self.events: asyncio.Queue[Event | EngineError] = asyncio.Queue()
        self.tasks: asyncio.Queue[Task] = asyncio.Queue()
        self.stopped: asyncio.Queue[Task] = asyncio.Queue()
        self.ended = 0
        self.is_open = False
        self._offers = offers

    @property
    def offers(self) -> Sequence[Offer]:
        return self._offers if self.is_open else ()

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def run(self, task: Task, stop: asyncio.Event) -> AsyncGenerator[Event, None]:
        self.tasks.put_nowait(task)
        watch = asyncio.create_task(self._watch(task, stop))
        try:
            while True:
                event = await self.events.get()
                if isinstance(event, EngineError):
                    raise event
                yield event
                if isinstance(event, Done):
                    return
        finally:
            watch.cancel()
            self.ended += 1

    async def _watch(self, task: Task, stop: asyncio.Event) -> None:
        await stop.wait()
        self.stopped.put_nowait(task)

    def does(self, *events: Event | EngineError) -> None:
        for event in events:
            self.events.put_nowait(event)


class Reader:
    """A requester that knows this worker's newest record."""

    def __init__(self) -> None:
        self.record: PeerRecord | None = None
        self.session = aiohttp.ClientSession()

    @contextlib.asynccontextmanager
    async def open(
        self, lease: Envelope, *, private: bool = True, after: int | None = None, prefix: str = ""
    ) -> AsyncIterator["Stream"]:
        assert self.record is not None
        private_part = codec.encode(a_private_part(lease.open(Lease).public.work)) if private else b""
        opening = signed(an_opening(lease, self.record.certificate), JOB_KEY)
        url = f"https://{self.record.addresses[0]}/stream"
        async with self.session.post(
            url,
            data=codec.encode(OpenBody(opening.raw, private_part, prefix)),
            params={} if after is None else {"after": after},
            ssl=aiohttp.Fingerprint(self.record.certificate),
        ) as response:
            yield Stream(response)


class Stream:
    """One response, frame by frame."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._response = response
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    async def next(self) -> Frame:
        while not self._frames:
            data = await self._response.content.readany()
            assert data, "the stream ended"
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    async def rest(self) -> list[Frame]:
        self._frames += self._reader.feed(await self._response.read())
        frames, self._frames = self._frames, []
        return frames


class Scene:
    """A worker, its tracker, and a reader."""

    def __init__(self, folder: Path, *engines: Engine, **options: Any) -> None:
        self.tracker = ScriptedTracker()
        self.engines = engines or (PuppetEngine(IMAGES),)
        self.folder = folder / "worker"
        self.reader = Reader()
        self.clock = NOW
        self.news: list[News] = []
        self.told = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.announced: Announce | None = None
        self.owner = 0
        self._options = options

    @property
    def puppet(self) -> PuppetEngine:
        engine = self.engines[0]
        assert isinstance(engine, PuppetEngine)
        return engine

    @contextlib.asynccontextmanager
    async def play(self) -> AsyncIterator["Scene"]:
        async with self.tracker.serving(), self.reader.session:
            await self.start()
            try:
                yield self
            finally:
                await self.end()

    async def start(self) -> None:
        settings = Settings(**{"host": "127.0.0.1"} | self._options)
        worker = Worker(
            self.tracker.link,
            WORKER,
            self.engines,
            self.folder,
            clock=lambda: self.clock,
            random=random.Random(1),
            settings=settings,
            backoff=Backoff(0, 0),
            on_news=self._hear_news,
            owner=self.owner,
        )
        self.task = asyncio.create_task(worker.run())
        await self.returned()

    def _hear_news(self, news: News) -> None:
        self.news.append(news)
        self.told.set()

    async def returned(self) -> None:
        """The worker has told where it is and what it serves."""
        hears = asyncio.create_task(self._hear_announce())
        assert self.task is not None
        await asyncio.wait({hears, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not hears.done():
            hears.cancel()
            self.task.result()

    async def _hear_announce(self) -> None:
        envelope, self.reader.record = await self.tracker.gets(PeerRecord)
        assert envelope.key == WORKER.public
        self.announced = await self.tracker.hears(Announce)

    async def end(self) -> None:
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def reports(self, state: str, reason: str = "", lease: Lease = IMAGE_LEASE) -> None:
        """Return when the worker has reported this of the lease; other reports are passed over."""
        while True:
            report = await self.tracker.hears(Report)
            for told in report.leases:
                if (told.job, told.attempt, told.state, told.reason) == (lease.job, lease.attempt, state, reason):
                    return

    async def lease(self, lease: Lease = IMAGE_LEASE) -> Envelope:
        """Push this; the worker accepts it."""
        envelope = await self.tracker.hands(lease)
        await self.reports("accepted", lease=lease)
        return envelope

    def spools(self) -> list[Path]:
        return sorted(self.folder.glob("spool/*/*"))

    async def until(self, kind: str) -> News:
        """The first news of this kind, once there is some."""
        while not (found := [news for news in self.news if news.kind == kind]):
            self.told.clear()
            await self.told.wait()
        return found[0]


async def test_it_registers_then_says_where_it_is_and_what_it_serves(tmp_path: Path) -> None:
    scene = Scene(
        tmp_path,
        PuppetEngine(IMAGES),
        PuppetEngine(IMAGES, TEXTS),
        ahead=3,
        limits=Limits(people=PeopleTable(anonymous=False, min_free_rate=5)),
    )
    async with scene.play():
        assert scene.announced == Announce(offers=(IMAGES, TEXTS), slots=2, ahead=3, anonymous=False, min_free_rate=5)
        assert scene.reader.record is not None
        assert scene.reader.record.addresses[0].startswith("127.0.0.1:")
        assert [news.kind for news in scene.news] == ["listening", "rules", "account", "joined"]


async def test_listening_everywhere_it_names_the_address_from_which_it_reaches_the_tracker(tmp_path: Path) -> None:
    async with Scene(tmp_path, host="").play() as scene:
        assert scene.reader.record is not None
        assert scene.reader.record.addresses[0].startswith("127.0.0.1:")
        async with scene.reader.open(await scene.lease()) as stream:
            assert stream.status == 200


async def test_who_has_an_account_does_not_register_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.tracker.registers = False
    async with scene.play():
        assert scene.tracker.heard == []
    assert not any(news.kind == "refused" for news in scene.news)


async def test_a_horde_that_takes_no_new_accounts_ends_the_worker_with_its_words(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.tracker.account = 0
    scene.tracker.registers = False
    async with scene.tracker.serving(), scene.reader.session:
        starting = asyncio.create_task(scene.start())
        await scene.tracker.hears(Register)
        await scene.tracker.says(Refused(code="not_registered", text="members only"))
        with pytest.raises(CannotJoin, match="members only"):
            await starting


async def test_it_announces_again_when_what_it_may_do_for_its_account_has_changed(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene:
        await scene.tracker.says(Refused(code="not_allowed", text="lets it ask and not work"))
        await scene.tracker.says(Account(number=7))
        await scene.returned()
        assert scene.announced is not None


@pytest.mark.parametrize("account", [0, 8])
async def test_a_delegate_works_for_nobody_but_whom_it_was_told(tmp_path: Path, account: int) -> None:
    scene = Scene(tmp_path)
    scene.owner, scene.tracker.account, scene.tracker.registers = 7, account, False
    async with scene.tracker.serving(), scene.reader.session:
        with pytest.raises(CannotJoin, match="acts for"):
            await scene.start()
    assert scene.tracker.heard == []


async def test_a_delegate_stops_when_it_acts_for_somebody_else(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.owner, scene.tracker.registers = 7, False
    async with scene.tracker.serving(), scene.reader.session:
        await scene.start()
        await scene.tracker.says(Account(number=0))
        await scene.tracker.says(Account(number=8))
        assert scene.task is not None
        with pytest.raises(CannotJoin, match="delegate use"):
            await scene.task


async def test_a_picture_from_lease_to_settlement(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    async with Scene(tmp_path).play() as scene:
        lease = await scene.lease()
        async with scene.reader.open(lease) as stream:
            await scene.reports("opened")
            task = await scene.puppet.tasks.get()
            assert (task.model, task.seed, task.preview_every) == (IMAGE_MODEL, 7, 5)
            scene.puppet.does(StepsDone(5, 30))
            assert await stream.next() == Progressed(5, 30)
            scene.puppet.does(PreviewMade(b"jpeg"))
            assert await stream.next() == Preview(b"jpeg")
            scene.puppet.does(ArtifactMade("image/png", content), Done(30))
            frames = [frame for frame in await stream.rest() if not isinstance(frame, Progressed | Preview)]
        assert isinstance(frames[0], Start)
        assert b"".join(frame.content for frame in frames if isinstance(frame, Chunk)) == content
        final = frames[-1]
        assert isinstance(final, Final)

        envelope, receipt = await scene.tracker.gets(Receipt)
        assert envelope.raw == final.receipt
        assert envelope.key == WORKER.public
        assert receipt.output_digest == output_digest(final.salt, [Artifact.of("image/png", content)])
        assert (receipt.used, receipt.partial, receipt.engine, receipt.finished) == (30, False, "pictures 1", NOW)
        assert len(scene.spools()) == 1
        await scene.tracker.says(Taken(documents=(envelope.digest,)))
        await scene.tracker.hands(a_settlement(IMAGE_LEASE))
        assert (await scene.until("settled")).earned == 7_600
        assert scene.spools() == []
        await scene.tracker.hands(a_settlement(IMAGE_LEASE))
        await scene.lease(a_lease(job=a_handle(2)))
        assert [news.kind for news in scene.news].count("settled") == 1


async def test_a_text_comes_as_it_is_made_and_can_be_resumed_by_number(tmp_path: Path) -> None:
    async with Scene(tmp_path, PuppetEngine(TEXTS)).play() as scene:
        lease = await scene.lease(TEXT_LEASE)
        async with scene.reader.open(lease, prefix="Once ") as stream:
            for number, piece in enumerate(("upon ", "a time")):
                scene.puppet.does(TextMade(piece))
                assert await stream.next() == Text(number, piece)
        async with scene.reader.open(lease, private=False, after=0) as stream:
            assert await stream.next() == Text(1, "a time")
            scene.puppet.does(Done(4, context_used=30, finish="length"))
            [final] = await stream.rest()
        assert isinstance(final, Final)
        assert (final.number, final.finish) == (2, "length")
        assert (await scene.puppet.tasks.get()).prefix == "Once "
        _, receipt = await scene.tracker.gets(Receipt)
        whole = Artifact.of("text/plain; charset=utf-8", b"Once upon a time")
        assert receipt.output_digest == output_digest(final.salt, [whole])
        assert (receipt.used, receipt.context_used) == (4, 30)


async def test_a_prefix_that_makes_of_it_what_may_not_be_made_is_declined_and_no_engine_sees_it(tmp_path: Path) -> None:
    async with Scene(tmp_path, PuppetEngine(TEXTS)).play() as scene:
        lease = await scene.lease(TEXT_LEASE)
        for _ in range(2):
            async with scene.reader.open(lease, prefix="sexual picture of a 12 year old") as stream:
                [failed] = await stream.rest()
                assert isinstance(failed, Failed)
                assert (stream.status, failed.code) == (400, "content_refused")
        await scene.reports("declined", "content_refused", TEXT_LEASE)
        assert scene.puppet.tasks.empty()
        assert scene.spools() == []


async def test_an_opening_before_the_lease_counts_as_acceptance(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene:
        lease = scene.tracker.horde.sign(IMAGE_LEASE)
        async with scene.reader.open(lease) as stream:
            assert stream.status == 200
            await scene.reports("opened")
            await scene.tracker.hands(IMAGE_LEASE)
            await scene.reports("opened")


async def test_openings_that_are_wrong_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene:
        lease = await scene.lease()
        for wrong, code, status in (
            (sign(IMAGE_LEASE, JOB_KEY, scene.tracker.horde.root), "wrong_lease", 403),
            (signed(but(IMAGE_LEASE, job_key=WORKER.public)), "wrong_lease", 403),
            (signed(a_lease(job=a_handle(5), deadline=NOW)), "too_late", 400),
            (signed(a_lease(a_request(a_public_part(an_image_work(1024, 1024))), job=a_handle(5))), "over_limit", 400),
        ):
            async with scene.reader.open(wrong) as stream:
                [failed] = await stream.rest()
                assert isinstance(failed, Failed)
                assert (failed.code, stream.status) == (code, status)
        async with scene.reader.open(lease, private=False) as stream:
            [failed] = await stream.rest()
            assert isinstance(failed, Failed)
            assert failed.code == "private_part_missing"
        assert scene.puppet.tasks.empty()
        async with scene.reader.open(lease) as stream:
            assert stream.status == 200


async def test_a_failure_is_told_to_tracker_and_reader_and_the_next_job_runs(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene:
        lease = await scene.lease()
        async with scene.reader.open(lease) as stream:
            scene.puppet.does(EngineError("crashed", "the engine's process ended"))
            assert await stream.rest() == [Failed("crashed", "the engine's process ended")]
        await scene.reports("failed", "crashed")
        assert scene.spools() == []
        async with scene.reader.open(lease) as stream:
            assert stream.status == 410

        again = await scene.lease(but(IMAGE_LEASE, attempt=2))
        async with scene.reader.open(again) as stream:
            scene.puppet.does(ArtifactMade("image/png", b"x"), Done(30))
            assert isinstance((await stream.rest())[-1], Final)


async def test_an_engine_goes_on_while_its_last_result_is_being_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    sync = Spool.sync
    monkeypatch.setattr(Spool, "sync", lambda spool: disk.wait() and sync(spool))
    try:
        async with Scene(tmp_path).play() as scene:
            first, second = await scene.lease(), await scene.lease(but(IMAGE_LEASE, job=a_handle(2)))
            async with scene.reader.open(first) as stored, scene.reader.open(second) as made:
                await scene.puppet.tasks.get()
                scene.puppet.does(ArtifactMade("image/png", b"x"), Done(30))

                await scene.puppet.tasks.get()
                disk.set()
                assert isinstance((await stored.rest())[-1], Final)
                scene.puppet.does(ArtifactMade("image/png", b"y"), Done(30))
                assert isinstance((await made.rest())[-1], Final)
    finally:
        disk.set()


@pytest.mark.parametrize("events", [[Done(30)], [ArtifactMade("image/png", b"x"), Done(3, finish="cancelled")]])
async def test_an_engine_that_ends_without_a_result_has_failed(tmp_path: Path, events: list[Event]) -> None:
    async with Scene(tmp_path).play() as scene, scene.reader.open(await scene.lease()) as stream:
        scene.puppet.does(*events)
        failed = (await stream.rest())[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "failed"


async def test_a_result_beyond_what_the_request_allows_is_a_failure(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene, scene.reader.open(await scene.lease()) as stream:
        scene.puppet.does(ArtifactMade("image/png", bytes(3_000_000)), Done(30))
        failed = (await stream.rest())[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "failed"


async def test_without_room_on_the_disk_the_attempt_fails_and_the_worker_goes_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.folder.mkdir()
    (scene.folder / "spool").write_text("in the way")
    async with scene.play():
        lease = await scene.lease()
        async with scene.reader.open(lease) as stream:
            assert stream.status == 410
        await scene.reports("failed", "failed")
        (scene.folder / "spool").unlink()
        async with scene.reader.open(await scene.lease(but(IMAGE_LEASE, attempt=2))) as stream:
            scene.puppet.does(ArtifactMade("image/png", b"x"), Done(30))
            assert isinstance((await stream.rest())[-1], Final)


async def test_a_cancel_ends_the_engine_with_what_there_is_and_a_partial_receipt(tmp_path: Path) -> None:
    async with Scene(tmp_path, PuppetEngine(TEXTS)).play() as scene:
        lease = await scene.lease(TEXT_LEASE)
        async with scene.reader.open(lease) as stream:
            scene.puppet.does(TextMade("Because "))
            assert await stream.next() == Text(0, "Because ")
            await scene.tracker.says(Withdrawn(job=TEXT_LEASE.job, attempt=1, reason="cancelled"))
            await scene.puppet.stopped.get()
            scene.puppet.does(Done(1, context_used=9, finish="cancelled"))
            [final] = await stream.rest()
        assert isinstance(final, Final)
        assert final.finish == "cancelled"
        _, receipt = await scene.tracker.gets(Receipt)
        assert (receipt.used, receipt.partial) == (1, True)


async def test_a_lease_taken_back_frees_its_engine_for_the_next(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene:
        first = await scene.lease()
        second = await scene.lease(a_lease(job=a_handle(2)))
        async with scene.reader.open(first) as stream, scene.reader.open(second) as waiting:
            await scene.puppet.tasks.get()
            await scene.tracker.says(Withdrawn(job=IMAGE_LEASE.job, attempt=1, reason="replaced"))
            assert await stream.rest() == [
                Failed("replaced", "the attempt is over: replaced"),
            ]
            await scene.puppet.tasks.get()
            assert scene.puppet.ended == 1
            scene.puppet.does(ArtifactMade("image/png", b"x"), Done(30))
            assert isinstance((await waiting.rest())[-1], Final)
        assert len(scene.spools()) == 1


async def test_what_is_past_its_deadline_is_given_up(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene, scene.reader.open(await scene.lease()) as stream:
        await scene.puppet.tasks.get()
        scene.clock += 11 * MINUTE
        failed = (await stream.rest())[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "deadline"


async def test_a_job_goes_on_while_the_tracker_is_away_and_is_handed_over_on_return(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene:
        lease = await scene.lease()
        async with scene.reader.open(lease) as stream:
            scene.puppet.does(StepsDone(12, 30))
            assert await stream.next() == Progressed(12, 30)
            assert await scene.tracker.holdings.get() == ()
            held = Held(kind="lease", job=IMAGE_LEASE.job, attempt=1, digest=lease.digest)
            scene.tracker.theirs = (held,)
            scene.tracker.cut()
            assert await scene.tracker.holdings.get() == (but(held, progress=12),)
            await scene.returned()

            scene.puppet.does(ArtifactMade("image/png", b"x"), Done(30))
            final = (await stream.rest())[-1]
        assert isinstance(final, Final)
        envelope, _ = await scene.tracker.gets(Receipt)
        assert envelope.raw == final.receipt

        scene.tracker.cut()
        kinds = [entry.kind for entry in await scene.tracker.holdings.get()]
        assert kinds == ["receipt"]
        again, _ = await scene.tracker.gets(Receipt)
        assert again.raw == envelope.raw


async def test_a_job_that_the_tracker_ended_meanwhile_is_dropped(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene, scene.reader.open(await scene.lease()) as stream:
        await scene.puppet.tasks.get()
        scene.tracker.cut()
        failed = (await stream.rest())[-1]
        assert isinstance(failed, Failed)
        assert failed.code == "ended"


async def test_after_a_restart_a_whole_result_is_held_and_served_with_a_new_certificate(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with scene.play():
        lease = await scene.lease()
        async with scene.reader.open(lease) as stream:
            scene.puppet.does(ArtifactMade("image/png", b"picture"), Done(30))
            before = await stream.rest()
        envelope, _ = await scene.tracker.gets(Receipt)
        old = scene.reader.record
        assert await scene.tracker.holdings.get() == ()

        await scene.end()
        scene.engines = (PuppetEngine(IMAGES),)
        await scene.start()

        assert [held.kind for held in await scene.tracker.holdings.get()] == ["receipt"]
        again, _ = await scene.tracker.gets(Receipt)
        assert again.raw == envelope.raw
        assert old is not None
        assert scene.reader.record is not None
        assert scene.reader.record.version > old.version
        assert scene.reader.record.certificate != old.certificate
        async with scene.reader.open(lease, private=False, after=0) as stream:
            after = await stream.rest()
        assert after == [frame for frame in before if isinstance(frame, Chunk | Final)]


async def test_after_a_restart_nothing_is_left_of_what_was_not_whole(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with scene.play():
        lease = await scene.lease()
        async with scene.reader.open(lease) as stream:
            await scene.puppet.tasks.get()
            assert len(scene.spools()) == 1
            ending = asyncio.create_task(scene.end())
            assert await stream.rest() == [Failed("stopping", "the worker is shutting down")]
            await ending
        assert scene.spools() == []
        scene.tracker.clock = NOW + 1
        scene.engines = (PuppetEngine(IMAGES),)
        await scene.start()
        async with scene.reader.open(lease) as stream:
            assert stream.status == 410


async def test_no_private_part_is_ever_in_a_file(tmp_path: Path) -> None:
    async with Scene(tmp_path).play() as scene, scene.reader.open(await scene.lease()) as stream:
        await scene.puppet.tasks.get()
        assert PROMPT not in all_bytes(tmp_path)
        scene.puppet.does(ArtifactMade("image/png", b"x"), Done(30))
        await stream.rest()
        assert b"image/png" in all_bytes(tmp_path)
        assert PROMPT not in all_bytes(tmp_path)


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_reports_that_fall_together_travel_together(tmp_path: Path) -> None:
    async with Scene(tmp_path, ahead=8).play() as scene:
        leases = [a_lease(job=a_handle(number)) for number in range(5)]
        for lease in leases:
            await scene.tracker.hands(lease)
        told: list[Progress] = []
        while len(told) < 5:
            told += (await scene.tracker.hears(Report)).leases
        assert [progress.job for progress in told] == [lease.job for lease in leases]
        assert {progress.state for progress in told} == {"accepted"}


async def test_engines_are_open_while_the_worker_runs_and_closed_after(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    async with scene.play():
        assert scene.puppet.is_open
    assert not scene.puppet.is_open


async def test_an_engine_that_cannot_open_ends_the_worker(tmp_path: Path) -> None:
    class Broken(PuppetEngine):
        async def open(self) -> None:
            raise EngineError("unsupported", "no such file")

    scene = Scene(tmp_path, Broken())
    async with scene.reader.session:
        with pytest.raises(EngineError, match="no such file"):
            await scene.start()


async def test_the_dry_run_makes_the_same_of_the_same_seed_in_its_own_process(tmp_path: Path) -> None:
    pictures: list[bytes] = []
    engine = ProcessEngine(EngineSpec(engine="dry-run", model=IMAGE_MODEL, options={"kind": "image"}))
    async with Scene(tmp_path, engine).play() as scene:
        for number in range(2):
            lease = await scene.lease(a_lease(job=a_handle(number)))
            async with scene.reader.open(lease) as stream:
                frames = await stream.rest()
            pictures.append(b"".join(frame.content for frame in frames if isinstance(frame, Chunk)))
            final = frames[-1]
            assert isinstance(final, Final)
            _, receipt = await scene.tracker.gets(Receipt)
            assert receipt.output_digest == output_digest(final.salt, [Artifact.of("image/png", pictures[-1])])
            await scene.tracker.hands(but(a_settlement(a_lease(job=a_handle(number))), settled=NOW))
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
