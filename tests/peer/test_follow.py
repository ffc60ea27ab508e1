"""One job at its requester: every state with every input, and the ways through them."""

import random
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peer import events, follow
from peer.follow import (
    MAX_FIRST_TRIES,
    MAX_TRIES,
    SOON_MS,
    Asked,
    Follow,
    FrameCame,
    LeaseCame,
    Opened,
    State,
    StreamEnded,
)
from peer.paths.choice import Path
from protocol import frames, messages
from protocol.digests import Artifact, output_digest
from protocol.documents import Lease, Request
from protocol.keys import SigningKey
from tests.support.builders import (
    JOB_KEY,
    MINUTE,
    NOW,
    ROOT,
    WORKER,
    a_handle,
    a_key,
    a_lease,
    a_public_part,
    a_receipt,
    a_request,
    a_salt,
    a_settlement,
    a_text_work,
    an_image_work,
    but,
    signed,
)

PICTURE = b"\x89PNG and so on"
SALT = a_salt(9)
TEXT_TYPE = "text/plain; charset=utf-8"
IMAGE = a_request(a_public_part(an_image_work()))
TEXT = a_request(a_public_part(a_text_work()))


class Scene:
    """A job, what it did, and short words for what happens to it."""

    def __init__(self, request: Request = IMAGE, seed: int = 1) -> None:
        self.request = request
        asked = Asked(request.public, request.private_digest, JOB_KEY.public, 0, seed=7)
        self.job = Follow(asked, ROOT.public, random.Random(seed))
        self.did: list[follow.Effect] = []
        self.now = NOW

    def happens(self, said: follow.Input) -> list[Any]:
        effects = self.job.receive(said, self.now)
        self.did += effects
        return effects

    def lease(self, attempt: int = 1, worker: SigningKey = WORKER) -> Lease:
        return a_lease(self.request, attempt=attempt, worker=worker)

    def leased(self, attempt: int = 1, worker: SigningKey = WORKER) -> list[Any]:
        lease = self.lease(attempt, worker)
        return self.happens(LeaseCame(lease, signed(lease)))

    def frame(self, frame: frames.Frame, attempt: int = 1) -> list[Any]:
        return self.happens(FrameCame(attempt, frame))

    def cut(self, reason: str = "cut", attempt: int = 1) -> list[Any]:
        return self.happens(StreamEnded(attempt, reason, "the line broke"))

    def final(
        self, number: int, artifacts: Sequence[Artifact], attempt: int = 1, worker: SigningKey = WORKER
    ) -> list[Any]:
        receipt = a_receipt(self.lease(attempt, worker), output=output_digest(SALT, artifacts))
        return self.frame(frames.Final(number, SALT, "stop", signed(receipt, worker).raw), attempt)

    def picture(self, content: bytes = PICTURE, claimed: bytes = PICTURE) -> list[Any]:
        """A whole picture comes, with a receipt for `claimed`."""
        self.frame(frames.Start(0, "image/png", len(content)))
        self.frame(frames.Chunk(1, content))
        return self.final(2, [Artifact.of("image/png", claimed)])

    def text(self, *pieces: str, start: int = 0, attempt: int = 1) -> None:
        for number, piece in enumerate(pieces, start):
            self.frame(frames.Text(number, piece), attempt)

    def settled(self, attempt: int = 1) -> list[Any]:
        settlement = a_settlement(self.lease(attempt))
        return self.happens(follow.SettlementCame(settlement, signed(settlement)))

    def ended(self, state: str = "failed", reason: str = "") -> list[Any]:
        return self.happens(messages.Ended(job=a_handle(), attempt=1, state=state, reason=reason))  # type: ignore[arg-type]

    def requeued(self, attempt: int = 1) -> list[Any]:
        return self.happens(messages.Requeued(job=a_handle(), attempt=attempt, reason="gone"))

    @property
    def told(self) -> list[events.Event]:
        return [effect.event for effect in self.did if isinstance(effect, follow.Emit)]

    @property
    def shown(self) -> str:
        """The text as somebody sees it who throws away what was voided."""
        pieces: list[str] = []
        for event in self.told:
            match event:
                case events.TextPiece(text=text):
                    pieces.append(text)
                case events.Restarted():
                    pieces.clear()
        return "".join(pieces)


def only(effects: Sequence[follow.Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def text_artifact(text: str) -> Artifact:
    return Artifact.of(TEXT_TYPE, text.encode())


def test_a_lease_opens_the_stream_from_its_beginning_with_the_private_part() -> None:
    [leased, opening] = Scene().leased()

    assert isinstance(leased.event, events.Leased)
    assert (opening.after, opening.private, opening.prefix, opening.delay_ms) == (-1, True, "", 0)


def test_a_whole_picture_is_shown_acknowledged_and_settled() -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))

    done = scene.picture()
    [acknowledge] = only(done, follow.Acknowledge)
    end = scene.settled()

    assert acknowledge.complete.output_digest == output_digest(SALT, [Artifact.of("image/png", PICTURE)])
    [picture] = [event for event in scene.told if isinstance(event, events.Picture)]
    assert (picture.content, picture.seed) == (PICTURE, 7)
    [received] = [event for event in scene.told if isinstance(event, events.Received)]
    assert received.receipt_digest == received.acknowledged_digest == acknowledge.complete.output_digest
    assert end[-1] == follow.End(None)
    assert scene.job.state is State.ENDED


def test_a_tampered_picture_is_never_shown_but_denied_with_its_receipt() -> None:
    scene = Scene()
    scene.leased()

    done = scene.picture(content=b"another one!!", claimed=PICTURE)
    [denial] = only(done, follow.Deny)
    [end] = only(scene.ended("refunded"), follow.End)

    assert (denial.reason, bool(denial.receipt)) == ("digest_mismatch", True)
    assert not [event for event in scene.told if isinstance(event, events.Picture)]
    assert isinstance(end.error, events.Denied)


@pytest.mark.parametrize("signer", [a_key(77), JOB_KEY])
def test_a_receipt_of_another_key_is_denied_without_it(signer: SigningKey) -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.text("hello")
    receipt = a_receipt(scene.lease(), output=output_digest(SALT, [text_artifact("hello")]))

    done = scene.frame(frames.Final(1, SALT, "stop", signed(receipt, signer).raw))

    assert only(done, follow.Deny) == [follow.Deny(1, "bad_receipt", b"")]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"attempt": 2}, "bad_receipt"),
        ({"job": a_handle(5)}, "bad_receipt"),
        ({"used": 10_000}, "over_lease"),
        ({"partial": True}, "partial"),
    ],
)
def test_a_receipt_that_does_not_fit_the_lease_is_denied(change: dict[str, Any], reason: str) -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.text("hello")
    receipt = but(a_receipt(scene.lease(), output=output_digest(SALT, [text_artifact("hello")])), **change)

    done = scene.frame(frames.Final(1, SALT, "stop", signed(receipt).raw))

    assert [denial.reason for denial in only(done, follow.Deny)] == [reason]


def test_a_partial_result_after_a_cancel_is_acknowledged() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.text("hel")
    scene.job.cancel()
    receipt = a_receipt(scene.lease(), output=output_digest(SALT, [text_artifact("hel")]), used=1, partial=True)

    done = scene.frame(frames.Final(1, SALT, "cancelled", signed(receipt).raw))

    assert only(done, follow.Acknowledge)


def test_after_a_cut_reading_goes_on_behind_the_last_frame_without_the_private_part() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))
    scene.text("one ", "two ")

    [opening] = scene.cut()

    assert (opening.after, opening.private, opening.prefix) == (1, False, "")


def test_a_worker_that_lost_the_private_part_gets_it_again() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))

    [opening] = scene.cut("private_part_missing")

    assert opening.private


def test_a_worker_that_cannot_be_reached_is_told_of_in_time() -> None:
    scene = Scene()
    scene.leased()

    for _ in range(MAX_FIRST_TRIES - 1):
        assert only(scene.cut("no_connection"), follow.Open)
    [told, _] = scene.cut("no_connection")

    assert told == follow.TellUnreachable(1, "no_connection", "the line broke")
    assert scene.job.state is State.GIVEN_UP


def test_a_first_try_that_went_over_all_paths_is_the_only_one() -> None:
    scene = Scene()
    scene.leased()
    scene.now += SOON_MS

    [told, _] = scene.cut("no_path")

    assert told == follow.TellUnreachable(1, "no_path", "the line broke")


def test_tries_count_only_in_a_row() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))

    for number in range(3 * MAX_TRIES):
        assert only(scene.cut(), follow.Open)
        scene.text("x", start=number)
    for _ in range(MAX_TRIES - 1):
        assert only(scene.cut(), follow.Open)

    assert only(scene.cut(), follow.TellUnreachable)


def test_progress_counts_as_something_new_only_if_it_is() -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))

    for _ in range(MAX_TRIES - 1):
        assert only(scene.cut(), follow.Open)
        scene.frame(frames.Progressed(0, 30))
    scene.cut()
    for _ in range(MAX_TRIES - 1):
        scene.frame(frames.Progressed(0, 30))
        scene.cut()

    assert scene.job.state is State.GIVEN_UP


def test_nothing_is_opened_after_the_deadline() -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))
    scene.now = NOW + 10 * MINUTE

    assert only(scene.cut(), follow.TellUnreachable)


@pytest.mark.parametrize("reason", sorted(follow.LASTING))
def test_an_answer_that_would_stay_the_same_is_not_asked_for_again(reason: str) -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))

    assert only(scene.cut(reason), follow.TellUnreachable)


def test_delays_grow_and_stay_below_a_bound() -> None:
    delays: list[int] = []
    for seed in range(200):
        scene = Scene(TEXT, seed=seed)
        scene.leased()
        scene.happens(Opened(1, Path.DIRECT, "because"))
        delays += [only(scene.cut(), follow.Open)[0].delay_ms for _ in range(MAX_TRIES - 1)]

    assert max(delays) <= follow.MAX_DELAY_MS
    assert max(delays[::4]) <= 2 * follow.FIRST_DELAY_MS
    assert len(set(delays)) > 100


def test_a_lease_that_comes_again_after_we_gave_up_is_opened_again() -> None:
    scene = Scene()
    scene.leased()
    assert only(scene.cut("stream_gone"), follow.TellUnreachable)

    assert only(scene.leased(), follow.Open)
    assert scene.job.state is State.READING


def test_a_result_that_cannot_be_read_is_denied_if_the_tracker_does_not_take_the_job_back() -> None:
    scene = Scene()
    scene.leased()
    [_, wait] = scene.cut("stream_gone")

    [denial] = scene.happens(follow.PatienceOver(wait.given_up))
    [end] = only(scene.ended("refunded"), follow.End)

    assert denial == follow.Deny(1, "stream_gone", b"")
    assert isinstance(end.error, events.Denied)


def test_a_worker_that_failed_is_denied_if_it_told_the_tracker_otherwise() -> None:
    scene = Scene()
    scene.leased()

    [_, wait] = scene.frame(frames.Failed("crashed", "out of memory"))

    assert only(scene.happens(follow.PatienceOver(wait.given_up)), follow.Deny)


def test_patience_with_an_earlier_attempt_says_nothing_about_a_later_one() -> None:
    scene = Scene()
    scene.leased()
    [_, wait] = scene.cut("stream_gone")
    scene.requeued()
    assert scene.happens(follow.PatienceOver(wait.given_up)) == []
    scene.leased(2)
    scene.cut("stream_gone", attempt=2)

    assert scene.happens(follow.PatienceOver(wait.given_up)) == []


def test_a_lease_that_comes_again_while_it_is_read_changes_nothing() -> None:
    scene = Scene()
    scene.leased()

    assert scene.leased() == []


def test_the_next_worker_goes_on_from_the_text_that_was_shown_and_all_of_it_is_acknowledged() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))
    scene.text("The sky ", "is ")
    scene.requeued()

    [_, _, opening] = scene.leased(2, a_key(50))
    scene.happens(Opened(2, Path.DIRECT, "because"))
    scene.text("blue.", attempt=2)
    done = scene.final(1, [text_artifact("The sky is blue.")], attempt=2, worker=a_key(50))

    assert (opening.prefix, opening.after, opening.private) == ("The sky is ", -1, True)
    assert only(done, follow.Acknowledge)
    assert scene.shown == "The sky is blue."
    assert not [event for event in scene.told if isinstance(event, events.Restarted)]


def test_where_no_engine_can_go_on_the_text_begins_anew_and_only_the_new_one_is_acknowledged() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))
    scene.text("The sky ")
    scene.leased(2, a_key(50))

    [restarted, opening] = scene.cut("prefix_unsupported", attempt=2)
    scene.happens(Opened(2, Path.DIRECT, "because"))
    scene.text("Blue.", attempt=2)
    done = scene.final(1, [text_artifact("Blue.")], attempt=2, worker=a_key(50))

    assert isinstance(restarted.event, events.Restarted)
    assert (opening.prefix, opening.after, opening.private) == ("", -1, True)
    assert only(done, follow.Acknowledge)
    assert scene.shown == "Blue."


def test_a_worker_cannot_make_us_begin_anew_for_ever() -> None:
    scene = Scene(TEXT)
    scene.leased()
    scene.text("The sky ")
    scene.leased(2, a_key(50))
    scene.cut("prefix_unsupported", attempt=2)

    for _ in range(MAX_FIRST_TRIES):
        scene.cut("prefix_unsupported", attempt=2)

    assert scene.job.state is State.GIVEN_UP
    assert len([event for event in scene.told if isinstance(event, events.Restarted)]) == 1


def test_a_stream_that_flows_is_read_on_after_its_attempt_was_taken_back() -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))

    scene.requeued()
    done = scene.picture()

    assert only(done, follow.Acknowledge)


def test_a_stream_that_breaks_after_its_attempt_was_taken_back_is_let_go() -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))
    scene.requeued()

    assert scene.cut() == []
    assert scene.job.state is State.WAITING


def test_an_attempt_that_was_taken_back_counts_again_if_its_lease_comes_again() -> None:
    scene = Scene()
    scene.leased()
    scene.happens(Opened(1, Path.DIRECT, "because"))
    scene.requeued()
    scene.cut()

    assert only(scene.leased(), follow.Open)
    assert only(scene.picture(), follow.Acknowledge)


def test_a_newer_lease_closes_the_stream_of_the_older_one() -> None:
    scene = Scene()
    scene.leased()

    [close, _, opening] = scene.leased(2)

    assert close == follow.Close()
    assert opening.lease.attempt == 2
    assert scene.frame(frames.Progressed(3, 30), attempt=1) == []


def test_a_newer_lease_does_not_touch_what_is_acknowledged() -> None:
    scene = Scene()
    scene.leased()
    scene.picture()

    assert scene.leased(2) == []
    assert scene.settled()[-1] == follow.End(None)


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1},
        {"job_key": a_key(8).public},
        {"private_digest": bytes(32)},
        {"model": "another"},
        {"public": a_public_part(an_image_work(steps=1))},
    ],
    ids=str,
)
def test_a_lease_of_something_else_ends_the_job(change: dict[str, Any]) -> None:
    scene = Scene()
    lease = but(scene.lease(), **change)

    [end] = only(scene.happens(LeaseCame(lease, signed(lease))), follow.End)

    assert isinstance(end.error, events.Refused)
    assert end.error.code == "wrong_lease"


def test_a_lease_above_the_price_that_was_allowed_ends_the_job() -> None:
    scene = Scene(but(IMAGE, public=but(IMAGE.public, max_price=7_599)))

    [end] = only(scene.leased(), follow.End)

    assert isinstance(end.error, events.Refused)


@pytest.mark.parametrize(
    "state, error",
    [
        ("refunded", events.JobFailed),
        ("cancelled", events.JobCancelled),
        ("expired", events.JobExpired),
        ("failed", events.JobFailed),
    ],
)
def test_each_end_has_its_error(state: str, error: type[events.JobError]) -> None:
    scene = Scene()
    scene.leased()

    [end] = only(scene.ended(state, "because"), follow.End)

    assert type(end.error) is error
    assert end.error.reason == "because"


def test_a_worker_that_failed_is_quoted_where_the_tracker_gives_its_code_only() -> None:
    scene = Scene()
    scene.leased()
    scene.frame(frames.Failed("too_long", "ask for more context"))

    [requeued] = scene.happens(messages.Requeued(job=a_handle(), attempt=1, reason="too_long"))
    [_, end] = scene.ended("failed", "too_long")

    assert requeued.event.text == str(end.error) == "ask for more context"
    assert end.error.reason == "too_long"


def test_what_a_worker_said_is_not_given_for_another_reason() -> None:
    scene = Scene()
    scene.leased()
    scene.frame(frames.Failed("too_long", "ask for more context"))

    [requeued] = scene.requeued()

    assert (requeued.event.reason, requeued.event.text) == ("gone", "")


def test_a_refused_acknowledgement_is_the_users_to_know() -> None:
    scene = Scene()
    scene.leased()
    scene.picture()

    [end] = scene.happens(follow.StatementRefused("too_late", "it has ended"))

    assert isinstance(end.error, events.Refused)


def test_a_settlement_for_what_never_came_whole_is_an_error_that_says_so() -> None:
    scene = Scene()
    scene.leased()

    [end] = only(scene.settled(), follow.End)

    assert isinstance(end.error, events.JobFailed)
    assert end.error.reason == "not_received"


EVERY_INPUT: list[follow.Input] = [
    messages.Position(job=a_handle(), ahead=1, workers=1),
    messages.Requeued(job=a_handle(), attempt=1, reason="gone"),
    messages.Ended(job=a_handle(), state="failed"),
    LeaseCame(a_lease(IMAGE), signed(a_lease(IMAGE))),
    follow.SettlementCame(a_settlement(), signed(a_settlement())),
    follow.StatementRefused("fenced", "too late"),
    follow.PatienceOver(1),
    Opened(1, Path.DIRECT, "because"),
    FrameCame(1, frames.Alive()),
    StreamEnded(1, "cut", "it broke"),
]


def test_the_table_of_inputs_here_is_complete() -> None:
    assert {type(said) for said in EVERY_INPUT} == {kind for moves in follow.MOVES.values() for kind in moves}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("said", EVERY_INPUT, ids=lambda said: type(said).__name__)
def test_every_state_takes_every_input_and_moves_as_the_table_says(state: State, said: follow.Input) -> None:
    scene = in_state(state)
    assert scene.job.state is state

    effects = scene.happens(said)

    allowed = follow.MOVES[state].get(type(said))
    if allowed is None:
        assert effects == []
        assert scene.job.state is state
    else:
        assert scene.job.state in allowed


def in_state(state: State) -> Scene:
    scene = Scene()
    if state is not State.WAITING:
        scene.leased()
    match state:
        case State.GIVEN_UP:
            scene.cut("stream_gone")
        case State.ACKNOWLEDGED:
            scene.picture()
        case State.DENIED:
            scene.picture(claimed=b"something else")
        case State.ENDED:
            scene.ended()
    return scene


class Lives(RuleBasedStateMachine):
    """Whatever comes in whatever order: one end, one acknowledgement, and of what was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(TEXT)
        self.newest = 0
        self.numbers: dict[int, int] = {}
        self.texts: dict[int, str] = {}

    @rule(again=st.booleans())
    def lease(self, again: bool) -> None:
        self.newest += 0 if again and self.newest else 1
        for opening in only(self.scene.leased(self.newest), follow.Open):
            if opening.after == -1:
                self.texts[self.newest], self.numbers[self.newest] = opening.prefix, 0

    @precondition(lambda self: self.newest in self.numbers)
    @rule(piece=st.text(max_size=5))
    def text(self, piece: str) -> None:
        number = self.numbers[self.newest]
        if any(self.scene.frame(frames.Text(number, piece), self.newest)):
            self.texts[self.newest] += piece
            self.numbers[self.newest] += 1

    @precondition(lambda self: self.newest in self.numbers)
    @rule(reason=st.sampled_from(["cut", "prefix_unsupported", "stream_gone", "private_part_missing"]))
    def cut(self, reason: str) -> None:
        for opening in only(self.scene.cut(reason, self.newest), follow.Open):
            if opening.after == -1 and opening.private:
                self.texts[self.newest], self.numbers[self.newest] = opening.prefix, 0

    @precondition(lambda self: self.newest in self.numbers)
    @rule(number=st.integers(-1, 5))
    def final(self, number: int) -> None:
        number = self.numbers[self.newest] if number < 0 else number
        self.scene.final(number, [text_artifact(self.texts[self.newest])], self.newest)

    @rule(attempt=st.integers(0, 3))
    def requeue(self, attempt: int) -> None:
        self.scene.requeued(max(1, attempt))

    @rule(said=st.sampled_from(EVERY_INPUT))
    def anything(self, said: follow.Input) -> None:
        if not isinstance(said, LeaseCame | FrameCame):
            self.scene.happens(said)

    @invariant()
    def ends_once(self) -> None:
        ends = only(self.scene.did, follow.End)
        assert len(ends) <= 1
        assert bool(ends) == (self.scene.job.state is State.ENDED)

    @invariant()
    def what_was_shown_is_what_is_acknowledged(self) -> None:
        stated = only(self.scene.did, follow.Acknowledge)
        assert len(stated) <= 1
        for acknowledge in stated:
            assert acknowledge.complete.artifacts == (text_artifact(self.scene.shown),)

    @invariant()
    def nothing_is_opened_for_an_older_attempt(self) -> None:
        attempts = [opening.lease.attempt for opening in only(self.scene.did, follow.Open)]
        assert attempts == sorted(attempts)


TestLives = Lives.TestCase


@given(st.binary(max_size=50))
def test_a_final_frame_with_any_receipt_denies_and_never_raises(receipt: bytes) -> None:
    scene = Scene(TEXT)
    scene.leased()

    assert only(scene.frame(frames.Final(0, SALT, "stop", receipt)), follow.Deny)
