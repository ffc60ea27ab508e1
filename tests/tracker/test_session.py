"""The tracker's side of the conversation: every state against every message, the order of checks, hostile bytes."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.documents import Cancel, sign
from protocol.envelope import (
    MAX_BEFORE_HELLO_BYTES,
    MAX_ENVELOPE_BYTES,
    Inbound,
    Outbound,
    check_delegation,
    decode_challenge,
    parse,
    seal,
    session_context,
)
from protocol.errors import Busy, OutOfTurn, Stopping
from protocol.kinds import DOCUMENTS
from protocol.messages import (
    DOCUMENTS_FROM_PEER,
    FROM_PEER,
    FROM_TRACKER,
    MAX_HOLDING_ENTRIES,
    AskAccount,
    Held,
    Hello,
    Holding,
    Private,
    Refused,
    Taken,
    Welcome,
)
from tests.protocol.examples import FULL_DOCUMENTS, FULL_MESSAGES, LEAST_MESSAGES
from tests.support.builders import (
    NOW,
    ROOT,
    SERVING,
    WORKER,
    a_cancel,
    a_delegation,
    a_digest,
    a_handle,
    a_key,
    a_nonce,
    a_request,
    signed,
)
from tracker.session import (
    ALLOWED,
    MAX_HELD,
    Effect,
    Greeted,
    HangUp,
    Heard,
    Presented,
    Reconciled,
    Send,
    Session,
    State,
)

PEER_SESSION = a_nonce(40)
OURS = a_nonce(41)
HELLO = Hello(session=PEER_SESSION, software="test 1")
MESSAGES = {type(message).KIND: message for message in FULL_MESSAGES} | {"hello": HELLO}
SOME_DOCUMENTS = {type(document).KIND: document for document in FULL_DOCUMENTS}


class Pair:
    """A session, and the peer at its other end, which signs and counts."""

    def __init__(self, state: State = State.GREETING, key=WORKER):
        self.session = Session(ROOT.public, SERVING, a_delegation().raw, OURS)
        self.key = key
        self.out = Outbound(ROOT.public, OURS, key)
        self.inbound = Inbound(ROOT.public, PEER_SESSION)
        if state is not State.GREETING:
            self.say(HELLO)
        if state in (State.OPEN, State.CLOSED):
            self.say(Holding(entries=(), last=True))
        if state is State.CLOSED:
            self.told(self.session.refuse(Stopping("bye"), final=True))
        assert self.session.state is state

    def say(self, message) -> list[Effect]:
        return self.session.receive(self.out.seal(message.KIND, codec.encode(message)).raw)

    def present(self, document, key=None) -> list[Effect]:
        return self.session.receive(sign(document, key or self.key, ROOT.public).raw)

    def told(self, effects) -> Refused:
        """The refusal among the effects, checked as the peer would."""
        [send] = [effect for effect in effects if isinstance(effect, Send)]
        envelope = parse(send.raw)
        self.inbound.check(envelope, SERVING.public)
        assert envelope.kind == "refused"
        return envelope.open(Refused)


def refusal(pair: Pair, effects) -> tuple[str, bool]:
    refused = pair.told(effects)
    assert [type(effect) for effect in effects] == [Send, HangUp] if refused.final else [Send]
    assert (pair.session.state is State.CLOSED) == refused.final
    return refused.code, refused.final


def test_the_first_words_are_the_challenge():
    challenge = decode_challenge(Session(ROOT.public, SERVING, a_delegation().raw, OURS).challenge(NOW))
    assert (challenge.root, challenge.session, challenge.clock) == (ROOT.public, OURS, NOW)
    check_delegation(parse(challenge.delegation), ROOT.public)


# Every state against every message


@pytest.mark.parametrize("kind", FROM_PEER)
@pytest.mark.parametrize("state", [State.RECONCILING, State.OPEN])
def test_every_message_in_every_state_after_hello(state, kind):
    pair = Pair(state)
    effects = pair.say(MESSAGES[kind])
    if FROM_PEER[kind] not in ALLOWED[state]:
        assert refusal(pair, effects) == ("out_of_turn", False)
    elif kind == "holding":
        assert effects == [], "the first part of several"
        assert pair.session.state is State.RECONCILING
    else:
        [heard] = effects
        assert isinstance(heard, Heard)
        assert heard.message == MESSAGES[kind]
    assert pair.session.state is state


@pytest.mark.parametrize("kind", FROM_PEER)
def test_nothing_but_hello_comes_first(kind):
    pair = Pair()
    effects = pair.say(MESSAGES[kind])
    if kind == "hello":
        assert effects == [Greeted(HELLO)]
        assert (pair.session.state, pair.session.peer) == (State.RECONCILING, WORKER.public)
    else:
        [hang_up] = effects
        assert isinstance(hang_up, HangUp)
        assert pair.session.state is State.CLOSED
        assert pair.session.peer is None


@pytest.mark.parametrize("kind", [*FROM_PEER, *sorted(DOCUMENTS_FROM_PEER)])
def test_what_is_closed_hears_nothing(kind):
    pair = Pair(State.CLOSED)
    effects = pair.say(MESSAGES[kind]) if kind in FROM_PEER else pair.present(SOME_DOCUMENTS[kind])
    assert effects == []


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("state", [State.GREETING, State.RECONCILING, State.OPEN])
def test_every_document_in_every_state(state, kind):
    pair = Pair(state)
    effects = pair.present(SOME_DOCUMENTS[kind])
    if state is State.GREETING:
        assert [type(effect) for effect in effects] == [HangUp]
    elif state is State.RECONCILING:
        assert refusal(pair, effects) == ("out_of_turn", False)
    elif kind not in DOCUMENTS_FROM_PEER:
        assert refusal(pair, effects) == ("unknown_kind", False)
    else:
        [presented] = effects
        assert isinstance(presented, Presented)
        assert presented.document == SOME_DOCUMENTS[kind]
        assert presented.envelope.key == WORKER.public


@pytest.mark.parametrize(
    "kind", [*sorted(FROM_TRACKER.keys() - FROM_PEER.keys()), "gossip", *sorted(DOCUMENTS_FROM_PEER)]
)
def test_kinds_that_no_peer_says_in_a_session_are_refused_by_name(kind):
    pair = Pair(State.OPEN)
    body = codec.encode(MESSAGES.get(kind) or SOME_DOCUMENTS.get(kind) or LEAST_MESSAGES[-1])
    effects = pair.session.receive(pair.out.seal(kind, body).raw)
    refused = pair.told(effects)
    assert (refused.code, refused.final) == ("unknown_kind", False)
    assert kind in refused.text


def test_the_table_names_every_message_that_a_peer_may_send():
    assert frozenset().union(*ALLOWED.values()) == frozenset(FROM_PEER.values())


# Holding


def held(number):
    return Held(kind="lease", job=a_handle(number), attempt=1, digest=a_digest(number))


def test_what_a_peer_holds_comes_in_parts_and_is_handed_on_whole():
    pair = Pair(State.RECONCILING)
    entries = tuple(held(number) for number in range(MAX_HOLDING_ENTRIES + 3))
    assert pair.say(Holding(entries=entries[:MAX_HOLDING_ENTRIES], last=False)) == []
    assert pair.say(Holding(entries=entries[MAX_HOLDING_ENTRIES:], last=True)) == [Reconciled(entries)]
    assert pair.session.state is State.OPEN


def test_nobody_holds_more_than_can_be_remembered():
    pair = Pair(State.RECONCILING)
    part = Holding(entries=tuple(held(number) for number in range(MAX_HOLDING_ENTRIES)), last=False)
    for _ in range(MAX_HELD // MAX_HOLDING_ENTRIES):
        assert pair.say(part) == []
    for _ in range(3):
        assert refusal(pair, pair.say(part)) == ("too_large", False)
    [reconciled] = pair.say(Holding(entries=(), last=True))
    assert isinstance(reconciled, Reconciled)
    assert len(reconciled.held) == MAX_HELD, "what was refused is not kept"


# Order of checks: size, shape, context, key, signature, body


def wrong_in_all(*right, size=20_000, kind="hello"):
    """A hello that is wrong in every way but those named, so that the answer shows what is looked at first."""
    wrong = {"size", "shape", "root", "session", "sequence", "key", "signature", "body"} - set(right)
    root = a_key(60).public if "root" in wrong else ROOT.public
    context = session_context(root, a_nonce(61) if "session" in wrong else OURS, 5 if "sequence" in wrong else 0)
    body = b"\xc1" if "body" in wrong else codec.encode(HELLO)
    if "size" in wrong:
        body += bytes(size)
    envelope = seal(kind, body, WORKER, context)
    key = bytes(32) if "key" in wrong else envelope.key
    signature = bytes(64) if "signature" in wrong else envelope.signature
    raw = codec.encode([1, kind, key, context, body, signature])
    return raw + b"\x00" if "shape" in wrong else raw


ORDER = ["size", "shape", "root", "session", "sequence", "key", "signature", "body"]
CODES = [
    "too_large",
    "malformed",
    "wrong_horde",
    "wrong_session",
    "out_of_sequence",
    "bad_key",
    "bad_signature",
    "malformed",
]


@pytest.mark.parametrize("at", range(len(ORDER)), ids=ORDER)
def test_a_hello_is_checked_in_the_order_of_the_standard(at):
    pair = Pair()
    # With all that is looked at before in order, this is what is found; the right key comes with its signature.
    raw = wrong_in_all(*ORDER[:at])
    [hang_up] = pair.session.receive(raw)
    assert isinstance(hang_up, HangUp)
    assert hang_up.reason.startswith(CODES[at] + ":")


def test_a_later_message_must_be_by_the_same_key():
    pair = Pair(State.OPEN)
    stranger = Outbound(ROOT.public, OURS, a_key(60), sequence=2)
    assert refusal(pair, pair.session.receive(stranger.seal("ask_account", b"\x80").raw)) == ("wrong_signer", True)


def test_a_body_is_opened_only_after_the_signature():
    pair = Pair(State.OPEN)
    envelope = pair.out.seal("ask_account", b"\xc1 no msgpack")
    forged = codec.encode([1, "ask_account", envelope.key, envelope.context, envelope.body, bytes(64)])
    assert refusal(pair, pair.session.receive(forged)) == ("bad_signature", True)


# What goes on after a refusal, and what does not


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("gossip", b"\x80", "unknown_kind"),
        ("announce", b"\x80", "bad_body"),
        ("announce", b"\xc1", "malformed"),
        ("announce", codec.encode({"offers": [], "!strict": 1}), "unknown_critical_field"),  # type: ignore[arg-type]
        ("hello", codec.encode(HELLO), "out_of_turn"),
        ("unreachable", bytes(17_000), "too_large"),
    ],
)
def test_what_is_wrong_with_a_counted_message_concerns_that_message_alone(kind, body, code):
    pair = Pair(State.OPEN)
    envelope = pair.out.seal(kind, body)
    refused = pair.told(pair.session.receive(envelope.raw))
    assert (refused.code, refused.final, refused.about) == (code, False, envelope.digest)
    [heard] = pair.say(AskAccount())
    assert isinstance(heard, Heard), "the conversation is still in step"


@pytest.mark.parametrize("what", ["replayed", "skipped", "another session's", "another horde's", "no envelope", "huge"])
def test_what_puts_the_conversation_out_of_step_ends_it(what):
    pair = Pair(State.OPEN)
    body = codec.encode(AskAccount())
    raw, code = {
        "replayed": (seal("ask_account", body, WORKER, session_context(ROOT.public, OURS, 1)).raw, "out_of_sequence"),
        "skipped": (seal("ask_account", body, WORKER, session_context(ROOT.public, OURS, 3)).raw, "out_of_sequence"),
        "another session's": (
            seal("ask_account", body, WORKER, session_context(ROOT.public, a_nonce(77), 2)).raw,
            "wrong_session",
        ),
        "another horde's": (
            seal("ask_account", body, WORKER, session_context(a_key(70).public, OURS, 2)).raw,
            "wrong_horde",
        ),
        "no envelope": (b"GET / HTTP/1.1", "malformed"),
        "huge": (bytes(MAX_ENVELOPE_BYTES + 1), "too_large"),
    }[what]
    assert refusal(pair, pair.session.receive(raw)) == (code, True)
    assert pair.say(AskAccount()) == []


def test_the_very_bytes_of_an_earlier_message_are_not_heard_again():
    pair = Pair(State.OPEN)
    raw = pair.out.seal("ask_account", b"\x80").raw
    assert isinstance(pair.session.receive(raw)[0], Heard)
    assert refusal(pair, pair.session.receive(raw)) == ("out_of_sequence", True)


def test_documents_do_not_advance_the_count_and_a_bad_one_ends_nothing():
    pair = Pair(State.OPEN)
    good = signed(a_cancel())
    forged = codec.encode([1, "cancel", good.key, good.context, good.body, bytes(64)])
    foreign = sign(a_cancel(), WORKER, a_key(70).public).raw
    oversized = sign(Cancel(nonce=a_nonce(1), valid_until=1), WORKER, ROOT.public)
    large = seal("cancel", oversized.body + bytes(5_000), WORKER, ROOT.public).raw
    for raw, code in ((forged, "bad_signature"), (foreign, "wrong_horde"), (large, "too_large")):
        assert refusal(pair, pair.session.receive(raw)) == (code, False)
    assert isinstance(pair.session.receive(good.raw)[0], Presented)
    assert isinstance(pair.session.receive(good.raw)[0], Presented), "the same again is not the session's matter"
    assert isinstance(pair.say(AskAccount())[0], Heard)


def test_a_document_in_a_session_message_and_the_other_way_round_are_unknown():
    pair = Pair(State.OPEN)
    bare = seal("ask_account", b"\x80", WORKER, ROOT.public).raw
    assert refusal(pair, pair.session.receive(bare)) == ("unknown_kind", False)
    sealed = pair.out.seal("request", codec.encode(a_request())).raw
    assert refusal(pair, pair.session.receive(sealed)) == ("unknown_kind", False)


def test_before_hello_nothing_large_is_read():
    pair = Pair()
    large = Hello(session=PEER_SESSION, software="s", rules=bytes(MAX_BEFORE_HELLO_BYTES))
    [hang_up] = pair.say(large)
    assert isinstance(hang_up, HangUp)
    assert hang_up.reason.startswith("too_large")


def test_afterwards_a_private_part_of_the_largest_size_passes():
    pair = Pair(State.OPEN)
    [heard] = pair.say(Private(private=bytes(256 * 1024)))
    assert isinstance(heard, Heard)
    assert refusal(pair, pair.say(Private(private=bytes(256 * 1024 + 1))))[1] is False


# What the tracker says


def test_what_is_said_is_signed_and_numbered_for_the_peers_session():
    pair = Pair(State.OPEN)
    welcome = Welcome(clock=NOW, rules=a_digest("rules"), rules_version=1)
    for message in (welcome, Taken(documents=(a_digest(),)), welcome):
        envelope = parse(pair.session.say(message))
        pair.inbound.check(envelope, SERVING.public)
        assert envelope.open(type(message)) == message


def test_nothing_is_said_before_hello():
    with pytest.raises(OutOfTurn):
        Pair().session.say(Taken(documents=(a_digest(),)))


def test_a_refusal_is_told_with_what_it_is_about_and_hangs_up_if_it_is_final():
    pair = Pair(State.OPEN)
    assert pair.told(pair.session.refuse(Busy("later"), b"d" * 32)) == Refused(
        code="busy", text="later", about=b"d" * 32
    )
    effects = pair.session.refuse(Stopping("bye"), final=True)
    assert pair.told(effects).final
    assert effects[-1] == HangUp("stopping: bye")
    assert pair.session.refuse(Busy("too late")) == [], "after the end nothing is said"


# Hostile bytes


@given(raw=st.binary(max_size=300), state=st.sampled_from(list(State)))
def test_no_bytes_make_a_session_raise(raw, state):
    pair = Pair(state)
    effects = pair.session.receive(raw)
    assert all(isinstance(effect, Send | HangUp) for effect in effects)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    kind=st.sampled_from([*FROM_PEER, *sorted(DOCUMENTS_FROM_PEER), "gossip", ""]) | st.text(max_size=60),
    value=VALUES,
    state=st.sampled_from([State.GREETING, State.RECONCILING, State.OPEN]),
)
def test_no_signed_body_makes_a_session_raise(kind, value, state):
    pair = Pair(state)
    body = msgspec.msgpack.encode(value)
    for raw in (pair.out.seal(kind, body).raw, seal(kind, body, WORKER, ROOT.public).raw):
        for effect in pair.session.receive(raw):
            assert isinstance(effect, Effect.__args__)


@given(data=st.data(), state=st.sampled_from([State.GREETING, State.RECONCILING, State.OPEN]))
def test_a_message_with_a_byte_changed_is_never_heard(data, state):
    pair = Pair(state)
    message = data.draw(st.sampled_from([message for message in FULL_MESSAGES if type(message).KIND in FROM_PEER]))
    raw = bytearray(pair.out.seal(message.KIND, codec.encode(message)).raw)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    effects = pair.session.receive(bytes(raw))
    assert effects
    assert all(isinstance(effect, Send | HangUp) for effect in effects)
