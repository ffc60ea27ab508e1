"""A peer's side of the conversation: every state against every message, and what hostile bytes come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.session import (
    NEXT,
    Deliver,
    DeliverDocument,
    Effect,
    HangUp,
    NewRules,
    Reconciled,
    Send,
    Session,
    State,
    Welcomed,
)
from protocol import codec
from protocol.documents import Cancel, Checkpoint, Document, RulesDocument, Shown, sign
from protocol.envelope import Outbound, encode_challenge, parse, seal, session_context
from protocol.errors import OutOfTurn
from protocol.kinds import DOCUMENTS
from protocol.messages import (
    DOCUMENTS_FROM_TRACKER,
    FROM_TRACKER,
    Account,
    Acts,
    Appeals,
    AskAccount,
    Delegations,
    Ended,
    Held,
    Holding,
    Look,
    Meet,
    Paths,
    Position,
    Punch,
    Queued,
    Quote,
    Reached,
    Refused,
    Register,
    Requeued,
    SessionMessage,
    Taken,
    Welcome,
    Why,
    Withdrawn,
)
from tests.support.builders import (
    NOW,
    ROOT,
    SERVING,
    a_challenge,
    a_digest,
    a_key,
    a_lease,
    a_peer_record,
    a_settlement,
    but,
    signed,
)
from tests.support.tracker_side import Horde, TrackerSide

JOB = b"j" * 16
DIGEST = b"d" * 32
PEER_SESSION = b"P" * 16
KEY = a_key(10)

MESSAGES: dict[str, SessionMessage] = {
    "welcome": Welcome(clock=NOW, rules=DIGEST, rules_version=1),
    "holding": Holding(entries=(), last=False),
    "refused": Refused(code="busy", text="later"),
    "queued": Queued(request=DIGEST, jobs=(JOB,), held=0),
    "position": Position(job=JOB, ahead=3, workers=1),
    "taken": Taken(documents=(DIGEST,)),
    "withdrawn": Withdrawn(job=JOB, attempt=1, reason="cancelled"),
    "requeued": Requeued(job=JOB, attempt=1, reason="failed"),
    "ended": Ended(job=JOB, state="expired"),
    "look": Look(token=b"t" * 16, family=6),
    "reached": Reached(address="192.0.2.7:8443", reachable=True),
    "meet": Meet(job=JOB, attempt=1, token=b"t" * 16, tries=3),
    "punch": Punch(job=JOB, attempt=1, number=1, address="192.0.2.7:50123"),
    "paths": Paths(job=JOB, attempt=1),
    "account": Account(number=7),
    "delegations": Delegations(entries=(), last=True),
    "quote": Quote(price=7_600, tax=3_000, held=10_600, free=0, workers=1, ahead=0),
    "why": Why(reasons=()),
    "acts": Acts(entries=()),
    "appeals": Appeals(entries=()),
}


def documents(horde: Horde) -> dict[str, bytes]:
    checkpoint = horde.sign(Checkpoint(size=0, root=DIGEST, time=NOW))
    return {
        "rules": horde.rules_document().raw,
        "lease": horde.sign(a_lease()).raw,
        "peer_record": signed(a_peer_record()).raw,
        "settlement": horde.sign(a_settlement()).raw,
        "checkpoint": checkpoint.raw,
    }


def sent(effects: list[Effect]) -> list[bytes]:
    """What the session sends; it does nothing else."""
    assert all(isinstance(effect, Send) for effect in effects)
    return [effect.raw for effect in effects if isinstance(effect, Send)]


class Pair:
    """A session and its tracker, joined in memory, brought as far as a test needs."""

    def __init__(self, *, until: State = State.GREETING, horde: Horde | None = None, **options) -> None:
        self.horde = horde or Horde()
        self.tracker = TrackerSide(self.horde)
        self.session = Session(self.horde.root, KEY, "test", PEER_SESSION, **options)
        if until is not State.GREETING:
            self.greet()
        if until in (State.RECONCILING, State.OPEN, State.CLOSED):
            self.receive(self.tracker.welcome())
        if until in (State.OPEN, State.CLOSED):
            self.reconcile()
        if until is State.CLOSED:
            self.receive(b"nonsense")
        assert self.session.state is until

    def greet(self) -> None:
        [hello] = sent(self.receive(self.tracker.challenge()))
        self.tracker.hears_hello(hello)

    def reconcile(self) -> None:
        [holding] = sent(self.session.hold([]))
        self.tracker.hears(holding)
        self.receive(self.tracker.holding())

    def receive(self, raw: bytes, now: int = NOW) -> list[Effect]:
        return self.session.receive(raw, now)

    def refuses(self, raw: bytes, now: int = NOW) -> str:
        """The code with which the session ends."""
        effects = self.receive(raw, now)
        assert isinstance(effects[-1], HangUp)
        assert self.session.state is State.CLOSED
        return effects[-1].refusal.code


def say(pair: Pair, message: SessionMessage) -> bytes:
    """As the tracker says it, also where it has not been greeted yet."""
    if pair.session.state is State.GREETING:
        return (
            Outbound(pair.horde.root, PEER_SESSION, pair.horde.serving_key)
            .seal(message.KIND, codec.encode(message))
            .raw
        )
    return pair.tracker.says(message)


def test_every_message_and_document_of_a_tracker_is_in_the_tables() -> None:
    heard = {kind for moves in NEXT.values() for kind in moves}

    assert set(FROM_TRACKER) == set(MESSAGES)
    assert set(documents(Horde())) == DOCUMENTS_FROM_TRACKER
    assert set(FROM_TRACKER.values()) <= heard
    assert {DOCUMENTS[kind] for kind in DOCUMENTS_FROM_TRACKER} <= heard


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", MESSAGES)
def test_each_message_is_taken_where_the_table_allows_it_and_else_ends_the_session(state: State, kind: str) -> None:
    pair = Pair(until=state)
    allowed = NEXT[state].get(FROM_TRACKER[kind])

    effects = pair.receive(say(pair, MESSAGES[kind]))

    if allowed is None:
        assert isinstance(effects[-1], HangUp)
        assert pair.session.state is State.CLOSED
    else:
        assert not any(isinstance(effect, HangUp) for effect in effects)
        assert pair.session.state is allowed


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", sorted(DOCUMENTS_FROM_TRACKER))
def test_each_document_is_taken_where_the_table_allows_it_and_else_ends_the_session(state: State, kind: str) -> None:
    pair = Pair(until=state)
    allowed = NEXT[state].get(DOCUMENTS[kind])

    effects = pair.receive(documents(pair.horde)[kind])

    if allowed is None:
        assert isinstance(effects[-1], HangUp)
        assert pair.session.state is State.CLOSED
    else:
        assert isinstance(effects[-1], DeliverDocument)
        assert pair.session.state is allowed


def test_the_whole_way_from_challenge_to_open() -> None:
    pair = Pair()
    [hello] = sent(pair.receive(pair.tracker.challenge(), NOW - 100))
    said = pair.tracker.hears_hello(hello)
    assert (said.session, said.rules) == (PEER_SESSION, b"")

    [welcomed] = pair.receive(pair.tracker.welcome(clock=NOW + 5000, account=7), NOW + 100)
    assert isinstance(welcomed, Welcomed)
    assert (welcomed.welcome.account, welcomed.clock_offset) == (7, 5000)

    new_rules, document = pair.receive(pair.horde.rules_document().raw)
    assert isinstance(new_rules, NewRules)
    assert (new_rules.version, new_rules.rules) == (1, pair.horde.rules)
    assert isinstance(document, DeliverDocument)

    held = Held(kind="lease", job=JOB, attempt=1, digest=DIGEST, progress=4)
    [holding] = sent(pair.session.hold([held]))
    assert pair.tracker.hears(holding).open(Holding) == Holding(entries=(held,), last=True)
    assert pair.receive(pair.tracker.holding(held)) == [Reconciled((held,))]
    assert pair.session.state is State.OPEN


def test_holdings_are_split_in_parts_and_only_the_last_is_marked() -> None:
    pair = Pair(until=State.RECONCILING)
    entries = [Held(kind="receipt", job=n.to_bytes(16, "big"), attempt=1, digest=DIGEST) for n in range(600)]

    parts = [pair.tracker.hears(raw).open(Holding) for raw in sent(pair.session.hold(entries))]

    assert [len(part.entries) for part in parts] == [256, 256, 88]
    assert [part.last for part in parts] == [False, False, True]
    assert pair.receive(pair.tracker.holding(*entries[:256], last=False)) == []
    assert pair.receive(pair.tracker.holding(*entries[256:300])) == [Reconciled(tuple(entries[:300]))]


def test_the_tracker_may_complete_its_holding_first() -> None:
    pair = Pair(until=State.RECONCILING)
    assert pair.receive(pair.tracker.holding()) == []

    _, reconciled = pair.session.hold([])

    assert reconciled == Reconciled(())
    assert pair.session.state is State.OPEN


def test_a_second_holding_after_the_last_one_is_out_of_turn() -> None:
    pair = Pair(until=State.RECONCILING)
    pair.receive(pair.tracker.holding())

    assert pair.refuses(pair.tracker.holding()) == "out_of_turn"


def test_what_is_said_is_numbered_for_the_trackers_session() -> None:
    pair = Pair(until=State.OPEN)

    said = [pair.session.say(Register()), pair.session.say(AskAccount())]

    contexts = [session_context(pair.horde.root, b"T" * 16, number) for number in (2, 3)]  # after hello and holding
    assert [envelope.context for envelope in said] == contexts
    assert [pair.tracker.hears(envelope.raw).kind for envelope in said] == ["register", "ask_account"]


@pytest.mark.parametrize("state", [State.GREETING, State.AWAITING_WELCOME, State.RECONCILING, State.CLOSED])
def test_nothing_can_be_said_before_our_holding_or_after_the_end(state: State) -> None:
    with pytest.raises(OutOfTurn):
        Pair(until=state).session.say(Register())


def test_after_our_holding_we_can_speak_whether_or_not_the_trackers_is_complete() -> None:
    pair = Pair(until=State.RECONCILING)
    [holding] = sent(pair.session.hold([]))
    pair.tracker.hears(holding)

    assert pair.tracker.hears(pair.session.say(Register()).raw).kind == "register"


@pytest.mark.parametrize("state", [State.GREETING, State.AWAITING_WELCOME, State.OPEN, State.CLOSED])
def test_our_holding_is_said_once_after_the_welcome(state: State) -> None:
    with pytest.raises(OutOfTurn):
        Pair(until=state).session.hold([])


def test_rules_kept_from_before_need_not_come_again() -> None:
    kept = Horde().rules_document()
    pair = Pair(rules=kept)
    [hello] = sent(pair.receive(pair.tracker.challenge()))
    assert pair.tracker.hears_hello(hello).rules == kept.digest

    _, rules = pair.receive(pair.tracker.welcome())

    assert rules == NewRules(kept, 1, pair.horde.rules)


def test_other_rules_than_those_in_force_are_not_used() -> None:
    pair = Pair(rules=Horde().rules_document(version=9))
    pair.greet()

    assert [type(effect) for effect in pair.receive(pair.tracker.welcome())] == [Welcomed]


def test_rules_that_this_program_cannot_read_end_the_session_for_good() -> None:
    pair = Pair(until=State.RECONCILING)
    document = RulesDocument(version=2, issued=NOW, rules='{"horde": {"name": 5}}')

    [effect] = pair.receive(pair.horde.sign(document).raw)

    assert isinstance(effect, HangUp)
    assert effect.lasting
    assert "update" in effect.refusal.text


# Who says it


def test_another_root_than_the_links_is_refused_for_good() -> None:
    pair = Pair()
    other = TrackerSide(Horde(root_key=a_key(13)))

    [effect] = pair.receive(other.challenge())

    assert isinstance(effect, HangUp)
    assert (effect.refusal.code, effect.lasting) == ("wrong_horde", True)


def challenge_with(delegation: bytes) -> bytes:
    return encode_challenge(but(a_challenge(), delegation=delegation))


def test_a_serving_key_that_the_root_did_not_appoint_is_refused() -> None:
    pair = Pair()
    thief = Horde(root_key=a_key(13), serving_key=a_key(14))
    forged = sign(thief.delegation().open(DOCUMENTS["serving"]), thief.root_key, pair.horde.root)

    assert pair.refuses(challenge_with(forged.raw)) == "bad_delegation"


def test_a_delegation_made_for_another_horde_is_refused() -> None:
    pair = Pair()
    other = Horde(root_key=a_key(13))

    assert pair.refuses(challenge_with(other.delegation().raw)) == "wrong_horde"


def test_a_delegation_with_a_broken_signature_is_refused() -> None:
    pair = Pair()
    raw = pair.horde.delegation().raw

    assert pair.refuses(challenge_with(raw[:-1] + bytes([raw[-1] ^ 1]))) == "bad_signature"


CERTIFICATE = a_digest("certificate")


def vouching(shown: bytes) -> bytes:
    return encode_challenge(but(a_challenge(), shown=shown))


def test_a_certificate_in_the_link_is_taken_if_the_serving_key_vouches_for_it() -> None:
    word = Horde().sign(Shown(digest=CERTIFICATE)).raw

    assert isinstance(Pair(certificate=CERTIFICATE).receive(vouching(word))[0], Send)
    # A link without one asks for no word, and is not troubled by one.
    assert isinstance(Pair().receive(vouching(word))[0], Send)
    assert isinstance(Pair().receive(vouching(b"nonsense"))[0], Send)


def test_a_certificate_that_nobody_or_somebody_else_vouches_for_is_refused_before_anything_is_said() -> None:
    horde, word = Horde(), Shown(digest=CERTIFICATE)
    good = horde.sign(word).raw
    for shown in (
        b"",
        b"nonsense",
        good[:-1] + bytes([good[-1] ^ 1]),
        horde.sign(Shown(digest=a_digest("another"))).raw,
        sign(word, a_key(13), horde.root).raw,
        sign(word, horde.serving_key, a_key(13).public).raw,
        horde.delegation().raw,
    ):
        pair = Pair(certificate=CERTIFICATE)
        effects = pair.receive(vouching(shown))
        assert [type(effect) for effect in effects] == [HangUp]
        assert isinstance(effects[0], HangUp)
        assert (effects[0].refusal.code, effects[0].lasting) == ("wrong_certificate", True)


def test_an_ended_delegation_is_refused() -> None:
    pair = Pair()

    assert pair.refuses(pair.tracker.challenge(expires=NOW), NOW) == "bad_delegation"
    assert isinstance(Pair().receive(pair.tracker.challenge(expires=NOW + 1), NOW)[0], Send)


def test_an_older_delegation_than_one_seen_before_is_refused_and_a_newer_one_remembered() -> None:
    assert Pair(delegation_seen=5).refuses(TrackerSide(Horde()).challenge(version=4)) == "bad_delegation"
    pair = Pair(delegation_seen=5)
    pair.receive(pair.tracker.challenge(version=6))
    assert pair.session.delegation_version == 6


def test_a_welcome_by_another_key_than_the_serving_key_is_refused() -> None:
    pair = Pair(until=State.AWAITING_WELCOME)
    pair.horde.serving_key = a_key(15)
    welcome = Welcome(clock=NOW, rules=DIGEST, rules_version=1)
    raw = Outbound(pair.horde.root, PEER_SESSION, a_key(15)).seal("welcome", codec.encode(welcome)).raw

    assert pair.refuses(raw) == "wrong_signer"


@pytest.mark.parametrize(
    ("context", "code"),
    [
        (session_context(a_key(13).public, PEER_SESSION, 1), "wrong_horde"),
        (session_context(ROOT.public, b"Q" * 16, 1), "wrong_session"),
        (session_context(ROOT.public, PEER_SESSION, 2), "out_of_sequence"),
        (session_context(ROOT.public, PEER_SESSION, 0), "out_of_sequence"),
        (ROOT.public, "unknown_kind"),
    ],
)
def test_a_message_in_another_context_is_refused(context: bytes, code: str) -> None:
    pair = Pair(until=State.RECONCILING)
    raw = seal("account", codec.encode(Account(number=1)), pair.horde.serving_key, context).raw

    assert pair.refuses(raw) == code


def test_the_same_message_again_is_out_of_sequence() -> None:
    pair = Pair(until=State.OPEN)
    raw = pair.tracker.says(Account(number=1))
    assert pair.receive(raw) == [Deliver(Account(number=1))]

    assert pair.refuses(raw) == "out_of_sequence"


def test_a_message_that_was_left_out_is_noticed() -> None:
    pair = Pair(until=State.OPEN)
    pair.tracker.says(Account(number=1))

    assert pair.refuses(pair.tracker.says(Account(number=2))) == "out_of_sequence"


def test_a_forged_message_is_refused_and_does_not_advance_the_count() -> None:
    pair = Pair(until=State.OPEN)
    raw = pair.tracker.says(Account(number=1))

    assert pair.refuses(raw[:-1] + bytes([raw[-1] ^ 1])) == "bad_signature"
    assert pair.session._inbound.sequence == 2  # welcome and holding


def test_a_document_of_another_horde_or_signer_is_refused() -> None:
    lease = a_lease()

    assert Pair(until=State.OPEN).refuses(sign(lease, SERVING, a_key(13).public).raw) == "wrong_horde"
    assert Pair(until=State.OPEN).refuses(sign(lease, a_key(16), ROOT.public).raw) == "wrong_signer"
    with_session = seal("lease", codec.encode(lease), SERVING, session_context(ROOT.public, PEER_SESSION, 2))
    assert Pair(until=State.OPEN).refuses(with_session.raw) == "unknown_kind"


def test_what_a_former_serving_key_signed_still_counts_but_it_says_nothing() -> None:
    before, after = SERVING, a_key(70)
    pair = Pair(horde=Horde(serving_key=after, former=(before,)), until=State.OPEN)
    lease, settlement = signed(a_lease(), before).raw, signed(a_settlement(), before).raw

    assert isinstance(pair.receive(lease)[-1], DeliverDocument)
    assert isinstance(pair.receive(settlement)[-1], DeliverDocument)
    message = Outbound(pair.horde.root, PEER_SESSION, before, 2).seal("account", codec.encode(Account(number=1)))
    assert pair.refuses(message.raw) == "wrong_signer"


def test_a_forged_peer_record_is_refused() -> None:
    pair = Pair(until=State.OPEN)
    raw = documents(pair.horde)["peer_record"]

    assert pair.refuses(raw[:-1] + bytes([raw[-1] ^ 1])) == "bad_signature"


@pytest.mark.parametrize("kind", ["hats", "register", "request", "receipt"])
def test_a_kind_that_no_tracker_sends_is_refused_by_name(kind: str) -> None:
    pair = Pair(until=State.OPEN)
    effects = pair.receive(seal(kind, b"\x80", pair.horde.serving_key, pair.horde.root).raw)

    assert isinstance(effects[0], HangUp)
    assert effects[0].refusal.code == "unknown_kind"
    assert kind in effects[0].refusal.text


def test_a_body_of_the_wrong_shape_is_refused_after_its_signature_was_found_right() -> None:
    pair = Pair(until=State.OPEN)
    context = session_context(pair.horde.root, PEER_SESSION, 2)

    assert pair.refuses(seal("account", b"\x80", pair.horde.serving_key, context).raw) == "bad_body"
    assert Pair(until=State.OPEN).refuses(seal("account", b"\x80", a_key(19), context).raw) == "wrong_signer"


def test_a_message_larger_than_its_kind_may_be_is_refused() -> None:
    pair = Pair(until=State.OPEN)
    context = session_context(pair.horde.root, PEER_SESSION, 2)
    large = seal("account", b"\x00" * 17_000, pair.horde.serving_key, context)

    assert pair.refuses(large.raw) == "too_large"


# What ends it


@pytest.mark.parametrize(("code", "lasting"), [("busy", False), ("stopping", False), ("unknown_version", True)])
def test_a_final_refusal_is_delivered_and_ends_the_session(code: str, lasting: bool) -> None:
    pair = Pair(until=State.OPEN)
    refused = Refused(code=code, text="because", final=True)

    delivered, end = pair.receive(pair.tracker.says(refused))

    assert delivered == Deliver(refused)
    assert isinstance(end, HangUp)
    assert (end.refusal.code, end.refusal.text, end.lasting) == (code, "because", lasting)
    assert pair.session.state is State.CLOSED


def test_another_protocol_version_is_said_so_and_lasts() -> None:
    [effect] = Pair().receive(codec.encode([2, "challenge", b""]))

    assert isinstance(effect, HangUp)
    assert (effect.refusal.code, effect.lasting) == ("unknown_version", True)


@given(st.binary(max_size=300), st.sampled_from(State))
def test_no_bytes_make_a_session_raise(raw: bytes, state: State) -> None:
    pair = Pair(until=state)

    effects = pair.receive(raw)

    assert isinstance(effects[-1], HangUp)
    assert pair.session.state is State.CLOSED


@given(st.data())
def test_no_changed_byte_of_a_true_message_is_taken(data: st.DataObject) -> None:
    pair = Pair(until=State.OPEN)
    raw = bytearray(pair.tracker.says(Account(number=1)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))

    assert isinstance(pair.receive(bytes(raw))[-1], HangUp)


def test_a_cancel_is_no_document_for_a_peer() -> None:
    pair = Pair(until=State.OPEN)
    cancel: Document = Cancel(nonce=JOB, valid_until=NOW)

    assert pair.refuses(pair.horde.sign(cancel).raw) == "unknown_kind"
    assert parse(pair.horde.sign(cancel).raw).is_document
