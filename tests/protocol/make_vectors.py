"""Write the byte vectors: `python -m tests.protocol.make_vectors [FOLDER]`. The same code always writes the same files.

Whoever writes a peer in another language checks it against these files; docs/protocol.md ("Vectors") says what each
holds. Bytes are lower-case hex; inside `fields` they stand as `{"hex": "..."}`, to be told from text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from protocol import codec, frames, merkle, postings, prices
from protocol.digests import Artifact, commitment, output_digest, private_digest
from protocol.documents import Document
from protocol.envelope import encode_challenge, seal, session_context
from protocol.keys import show_key
from protocol.links import Link, show_certificate
from protocol.messages import AskAccount, SessionMessage
from protocol.rules import MintSection, ModelSection, PricesSection, Rules, to_json
from protocol.work import ImageWork, TextWork, Work
from tests.protocol import curve, examples
from tests.support import builders as b

FOLDER = Path(__file__).with_name("vectors")

Json = Any


def plain(value: object) -> Json:
    """A struct or value as JSON can hold it: fields at their default left out, bytes as `{"hex": ...}`."""
    return _hexed(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _hexed(value: Json) -> Json:
    match value:
        case bytes():
            return {"hex": value.hex()}
        case dict():
            return {name: _hexed(item) for name, item in value.items()}
        case list() | tuple():
            return [_hexed(item) for item in value]
    return value


def keys() -> Json:
    """Keys: good ones, refused ones, and signatures with what every auditor must say of them."""
    secret = 0x1234567890ABCDEF
    public = curve.encode(curve.times(secret, curve.BASE))
    message = b"message"
    good = b.a_key(0).sign(message)
    unreduced = good[:32] + (int.from_bytes(good[32:], "little") + curve.ORDER).to_bytes(32, "little")
    torsion = curve.small_order_points()
    identity = curve.encode(curve.IDENTITY)
    no_point = next(number.to_bytes(32, "little") for number in range(2, 99) if curve.x_of(number, 0) is None)

    def judged(key: bytes, signature: bytes, code: str | None, why: str) -> Json:
        return {"key": key.hex(), "message": message.hex(), "signature": signature.hex(), "code": code, "why": why}

    shown = show_key(b.ROOT.public)
    return {
        "valid": [
            {"seed": key.seed.hex(), "public": key.public.hex(), "shown": show_key(key.public)}
            for key in map(b.a_key, range(6))
        ],
        "refused": [
            *({"public": key.hex(), "why": "small order"} for key in curve.small_order_encodings()),
            *({"public": key.hex(), "why": "not canonical"} for key in curve.non_canonical_encodings()),
            {"public": bytes(31).hex(), "why": "31 bytes"},
            {"public": b.ROOT.public.hex() + "00", "why": "33 bytes"},
        ],
        "refused_shown": [
            *("", shown[:-1], shown + "a", shown.upper(), shown + "====", shown[:-1] + "1"),
            shown[:-1] + ("c" if shown[-1] != "c" else "d"),
            show_key(bytes(32)),
        ],
        "signatures": [
            judged(b.a_key(0).public, good, None, "as signed"),
            judged(public, curve.sign_with(secret, 42, message, key=public), None, "as signed"),
            judged(b.a_key(1).public, good, "bad_signature", "another key"),
            judged(b.a_key(0).public, bytes([good[0] ^ 1]) + good[1:], "bad_signature", "one bit of R changed"),
            judged(b.a_key(0).public, unreduced, "bad_signature", "S + L in place of S"),
            *(
                judged(
                    public,
                    curve.sign_with(secret, 42, message, key=public, twist=point),
                    "bad_signature",
                    "a point of small order added to R",
                )
                for point in torsion
                if point != curve.IDENTITY
            ),
            *(
                judged(
                    public,
                    curve.sign_with(secret, 0, message, key=public, twist=point),
                    "bad_signature",
                    "R of small order",
                )
                for point in torsion
            ),
            judged(identity, curve.encode(curve.BASE) + (1).to_bytes(32, "little"), "bad_key", "fits every message"),
            judged(no_point, good, "bad_signature", "a key that is no point of the curve"),
        ],
    }


def links() -> Json:
    """Links: as printed, and refused."""
    good = [
        b.a_link(),
        Link("wss://horde.example", b.ROOT.public),
        Link("wss://horde.example:8443/potluck", b.ROOT.public, "Ünïcode & spaces + more"),
        Link("ws://[::1]:8000", b.ROOT.public, "x" * 60),
        Link("wss://192.0.2.7:7345", b.ROOT.public, "a name", b.a_digest("certificate")),
        Link("wss://192.0.2.7:7345", b.ROOT.public, "a name", b.a_digest("certificate"), members=True),
    ]
    key, shown = show_key(b.ROOT.public), show_certificate(b.a_digest("certificate"))
    return {
        "valid": [
            {
                "link": str(link),
                "url": link.url,
                "root": link.root.hex(),
                "name": link.name,
                "certificate": link.certificate.hex(),
                "members": link.members,
                "needs_insecure": link.needs_insecure,
            }
            for link in [*good, Link("ws://horde.example", b.ROOT.public), Link("ws://8.8.8.8:80", b.ROOT.public)]
        ],
        "refused": [
            "magnet:?tr=ws://h&id=" + key,
            "potluck:?id=" + key,
            "potluck:?tr=ws://h",
            f"potluck:?tr=ws://h&tr=ws://i&id={key}",
            f"potluck:?tr=http://h&id={key}",
            f"potluck:?tr=ws://u@h&id={key}",
            f"potluck:?tr=ws://h:0&id={key}",
            f"potluck:?tr=ws://h%0a&id={key}",
            "potluck:?tr=ws://h&id=" + show_key(bytes(32)),
            f"potluck:?tr=wss://h&id={key}&cert=",
            f"potluck:?tr=wss://h&id={key}&cert={shown[:-1]}",
            f"potluck:?tr=wss://h&id={key}&cert={shown[:-1]}b",
            f"potluck:?tr=wss://h&id={key}&cert={shown.upper()}",
            f"potluck:?tr=wss://h&id={key}&cert={shown}&cert={shown}",
            f"potluck:?tr=ws://127.0.0.1&id={key}&cert={shown}",
            f"potluck:?tr=ws://127.0.0.1&id={key}&members=0",
            f"potluck:?tr=ws://127.0.0.1&id={key}&members=1&members=1",
        ],
    }


def envelopes() -> Json:
    """Envelopes of both families byte by byte, a challenge, and what a receiver says to wrong ones."""
    session = b.a_nonce(1)
    body = codec.encode(AskAccount())
    spoken = seal("ask_account", body, b.REQUESTER, session_context(b.ROOT.public, session, 5))
    document = b.signed(b.a_receipt())
    challenge = b.a_challenge(certificate=b.a_digest("certificate"))
    return {
        "envelopes": [_taken_apart(spoken, b.REQUESTER.seed), _taken_apart(document, b.WORKER.seed)],
        "challenge": {
            "fields": plain(challenge),
            "encoded": encode_challenge(challenge).hex(),
            "certificate": b.a_digest("certificate").hex(),
        },
        "delegation": {"root": b.ROOT.public.hex(), "envelope": b.a_delegation().raw.hex()},
        "receiver": {
            "root": b.ROOT.public.hex(),
            "session": session.hex(),
            "next": 5,
            "key": b.REQUESTER.public.hex(),
            "limit": 4096,
        },
        "received": _received(session, body),
    }


def _taken_apart(envelope: Any, seed: bytes) -> Json:
    return {
        "seed": seed.hex(),
        "kind": envelope.kind,
        "key": envelope.key.hex(),
        "context": envelope.context.hex(),
        "body": envelope.body.hex(),
        "signed_bytes": envelope.signed_bytes.hex(),
        "signature": envelope.signature.hex(),
        "envelope": envelope.raw.hex(),
        "digest": envelope.digest.hex(),
    }


def _received(session: bytes, body: bytes) -> list[Json]:
    """In the order of checks; each is wrong in all that is checked later too, where that can be."""
    root, key = b.ROOT.public, b.REQUESTER
    here = session_context(root, session, 5)

    def raw(context: bytes = here, /, **changes: object) -> bytes:
        made = seal("ask_account", body, key, context)
        parts: dict[str, object] = {
            "version": 1,
            "kind": made.kind,
            "key": made.key,
            "context": context,
            "body": body,
            "signature": made.signature,
        }
        packed: bytes = msgpack.packb(list((parts | changes).values()))
        return packed

    bad: dict[str, object] = {"key": bytes(32), "body": b"\x90"}
    cases: list[tuple[str, str | None, bytes]] = [
        ("as it should be", None, raw()),
        ("too large", "too_large", raw(body=bytes(4096), version=2)),
        ("no msgpack", "malformed", b"\xc1"),
        ("five elements", "malformed", msgpack.packb([1, "ask_account", key.public, here, body])),
        ("a short key", "malformed", raw(key=bytes(31))),
        ("a context of another length", "malformed", raw(context=bytes(48))),
        ("another version", "unknown_version", raw(version=2, **bad)),
        ("another version in another shape", "unknown_version", msgpack.packb([2, "ask_account"])),
        ("a document's context", "unknown_kind", raw(root, **bad)),
        ("another horde", "wrong_horde", raw(session_context(b.a_key(9).public, b.a_nonce(9), 9), **bad)),
        ("another session", "wrong_session", raw(session_context(root, b.a_nonce(9), 9), **bad)),
        ("the number before", "out_of_sequence", raw(session_context(root, session, 4), **bad)),
        ("the number after", "out_of_sequence", raw(session_context(root, session, 6), **bad)),
        ("another key", "wrong_signer", raw(key=b.WORKER.public)),
        ("a changed body", "bad_signature", raw(body=b"\x90")),
        ("a body of another shape", "bad_body", seal("ask_account", b"\x90", key, here).raw),
        (
            "a body with a critical field",
            "unknown_critical_field",
            seal("ask_account", b"\x81\xa1!\x01", key, here).raw,
        ),
    ]
    return [{"case": case, "code": code, "envelope": packed.hex()} for case, code, packed in cases]


def bodies() -> Json:
    """Every body with as little as it may hold, and with every field away from its default."""
    messages: list[SessionMessage] = [*examples.LEAST_MESSAGES, *examples.FULL_MESSAGES]
    return [
        *(_row(body.KIND, "session", body) for body in messages),
        *(_row(body.KIND, "document", body) for body in (*examples.LEAST_DOCUMENTS, *examples.FULL_DOCUMENTS)),
        *(_row(name, "work", work) for name, work in examples.WORKS.items()),
        *(_row(name, "private part", private) for name, private in examples.PRIVATE_PARTS.items()),
        _row("leaf", "ledger", examples.LEAF),
        _row("evidence", "ledger", examples.EVIDENCE),
    ]


def _row(kind: str, family: str, body: msgspec.Struct) -> Json:
    return {"kind": kind, "family": family, "fields": plain(body), "encoded": codec.encode(body).hex()}


def strictness() -> Json:
    """Single values in msgpack, and whether the strict subset has them."""
    nested = [b"\x91" * (depth - 1) + b"\x90" for depth in (16, 17)]
    cases: list[tuple[str, str | None, bytes]] = [
        ("empty map", None, b"\x80"),
        ("unknown fields", None, b"\x82\xa1a\xc0\xa1b\x91\xc3"),
        ("the largest integer", None, b"\xcf\x7f" + b"\xff" * 7),
        ("the smallest integer", None, b"\xd3\x80" + bytes(7)),
        ("an integer in more bytes than it needs", None, b"\xcd\x00\x01"),
        ("text in a longer form than it needs", None, b"\xd9\x01a"),
        ("16 levels", None, nested[0]),
        ("17 levels", "malformed", nested[1]),
        ("nothing", "malformed", b""),
        ("cut short", "malformed", b"\x81\xa1a"),
        ("trailing byte", "malformed", b"\x80\x00"),
        ("two values", "malformed", b"\x80\x80"),
        ("the byte that means nothing", "malformed", b"\xc1"),
        ("an integer as field name", "malformed", b"\x81\x01\x01"),
        ("bytes as field name", "malformed", b"\x81\xc4\x01a\x01"),
        ("a field twice", "malformed", b"\x82\xa1a\x01\xa1a\x02"),
        ("a field twice, spelt differently", "malformed", b"\x82\xa1a\x01\xd9\x01a\x02"),
        ("a field twice, further in", "malformed", b"\x91\x82\xa1a\x01\xa1a\x01"),
        ("a float of 32 bits", "malformed", b"\xca\x3f\x80\x00\x00"),
        ("a float of 64 bits", "malformed", b"\xcb\x3f\xf0" + bytes(6)),
        ("not a number", "malformed", b"\xcb\x7f\xf8" + bytes(6)),
        ("an extension", "malformed", b"\xd4\x05\x00"),
        ("a timestamp", "malformed", b"\xd6\xff\x00\x00\x00\x00"),
        ("text that is no UTF-8", "malformed", b"\xa1\xff"),
        ("half of a surrogate pair", "malformed", b"\xa3\xed\xa0\x80"),
        ("an integer beyond 64 bits with sign", "malformed", b"\xcf\x80" + bytes(7)),
        ("an array longer than the message", "malformed", b"\xdd\xff\xff\xff\xff"),
        ("a critical field", "unknown_critical_field", b"\x81\xa2!x\x01"),
        ("a critical field further in", "unknown_critical_field", b"\x81\xa1a\x91\x81\xa2!x\x01"),
    ]
    return [{"case": case, "code": code, "encoded": raw.hex()} for case, code, raw in cases]


def digests() -> Json:
    """Private digest, output digest, commitments."""
    text = Artifact.of("text/plain; charset=utf-8", b"Because of the air.")
    picture = Artifact.of("image/png", b"a picture")
    return {
        "private": [
            {"private": codec.encode(private).hex(), "digest": private_digest(codec.encode(private)).hex()}
            for private in examples.PRIVATE_PARTS.values()
        ],
        "output": [
            {
                "salt": b.a_salt(2).hex(),
                "artifacts": [[item.media_type, item.size, item.sha256.hex()] for item in artifacts],
                "encoded": codec.encode([b.a_salt(2), artifacts]).hex(),
                "digest": output_digest(b.a_salt(2), artifacts).hex(),
            }
            for artifacts in ([picture], [text], [picture, text], [])
        ],
        "commitment": [
            {
                "salt": b.a_salt(3).hex(),
                "parts": [part.hex() for part in parts],
                "digest": commitment(b.a_salt(3), *parts).hex(),
            }
            for parts in ([], [b""], [b.a_handle()], [b.a_digest(1), b.a_digest(2)])
        ],
    }


def _priced(name: str, rules: Rules, model: str, works: list[Work]) -> Json:
    def row(work: Work) -> Json:
        whole = prices.price(rules, work, model)
        most = work.steps if isinstance(work, ImageWork) else work.max_tokens
        used = sorted({0, 1, most // 2, most - 1, most})
        return {
            "work": plain(work),
            "price": whole,
            "used": [[number, prices.used_price(rules, work, model, number, whole)] for number in used],
        }

    return {"name": name, "rules": to_json(rules), "model": model, "prices": [row(work) for work in works]}


def price_vectors() -> Json:
    """What jobs cost under the default rules and under others."""
    pictures: list[Work] = [ImageWork(width=side, height=side) for side in (16, 64, 512, 768, 1024, 1536, 2048, 4096)]
    pictures += [
        ImageWork(steps=50),
        ImageWork(steps=1),
        ImageWork(guidance_passes=1),
        ImageWork(width=520, height=616, steps=23),
    ]
    texts: list[Work] = [
        TextWork(max_tokens=74),
        TextWork(max_tokens=1, context_tokens=16),
        TextWork(max_tokens=512, context_tokens=8192),
        TextWork(max_tokens=4096, context_tokens=131_072),
    ]
    other = Rules(
        prices=PricesSection(image_extras={"upscale": 1_500}, image_sizes=((100_000, 3_333), (200_000, 9_999))),
        models={"small": ModelSection(millions=135), "huge": ModelSection(millions=405_000, price=1_250)},
    )
    plugged = Rules(prices=PricesSection(plugin="by_moon"))
    extra: list[Work] = [ImageWork(width=64, height=64, extras=("upscale",)), ImageWork()]
    return [
        _priced("pictures", Rules(), "any", pictures),
        _priced("texts", Rules(), "any", texts),
        _priced("extras, other sizes", other, "any", extra),
        _priced("a small model", other, "small", texts),
        _priced("a huge and dearer model", other, "huge", [*texts, *extra]),
        {
            "name": "by a plug-in, whose price here is 9999",
            "rules": to_json(plugged),
            "model": "any",
            "prices": [
                {
                    "work": plain(TextWork(max_tokens=74)),
                    "price": 9_999,
                    "plugin": True,
                    "used": [
                        [used, prices.used_price(plugged, TextWork(max_tokens=74), "any", used, 9_999)]
                        for used in (0, 1, 37, 74)
                    ],
                }
            ],
        },
    ]


def kudos() -> Json:
    """Shares of a hold, the mint's steps and shares, probation, tax, postings of each event."""
    steps = MintSection().steps
    daily = 1_000_000
    uses = (0, 499_999, 500_000, 749_999, 750_000, 899_999, 900_000, 999_000, 1_000_000, 2_000_000)
    events: list[tuple[str, dict[str, int], postings.Postings]] = [
        ("hold", {"payer": 100, "amount": 10_600}, postings.hold(100, 10_600)),
        ("release", {"payer": 100, "amount": 700}, postings.release(100, 700)),
        ("refund", {"payer": 100, "amount": 10_600}, postings.release(100, 10_600)),
        *(
            ("settle", {"worker": 101, **parts}, postings.settle(101, **parts))
            for parts in (
                {"paid": 7_600, "minted": 0, "burned": 3_000},
                {"paid": 5_000, "minted": 1_300, "burned": 0},
                {"paid": 0, "minted": 7_600, "burned": 0},
                {"paid": 0, "minted": 0, "burned": 0},
                {"paid": 5_000, "minted": 1_300, "burned": 0, "withheld": 3_150},
                {"paid": 5_000, "minted": 1_300, "burned": 3_000, "withheld": 6_300},
            )
        ),
        ("vest", {"account": 101, "amount": 9_450}, postings.vest(101, 9_450)),
        ("transfer", {"giver": 100, "to": 101, "amount": 2_000}, postings.transfer(100, 101, 2_000)),
        *(
            ("leave", {"account": 101, **parts}, postings.leave(101, **parts))
            for parts in (
                {"balance": 4_000, "withheld": 3_150},
                {"balance": 0, "withheld": 0},
                {"balance": -1_000, "withheld": 3_150},
                {"balance": -4_000, "withheld": 3_150},
            )
        ),
        ("award", {"account": 100, "amount": 50_000}, postings.award(100, 50_000)),
        (
            "recovered",
            {"worker": 101, "paid": 5_000, "minted": 1_300, "burned": 3_000},
            postings.settle(101, paid=5_000, minted=1_300, burned=3_000),
        ),
        ("charged", {"payer": 100, "amount": 8_000}, postings.hold(100, 8_000)),
    ]
    return {
        "shares": [
            {"price": price, "tax": tax, "available": available, **plain(vars(postings.share(price, tax, available)))}
            for price, tax in ((7_600, 3_000), (0, 3_000), (7_600, 0))
            for available in (20_000, 10_600, 9_000, 7_600, 5_000, 0, -5)
        ],
        "mint": [
            {
                "steps": plain(steps),
                "daily": daily,
                "used": used,
                "free": 7_600,
                "rate": postings.mint_rate(steps, daily, used),
                "minted": postings.minted(steps, daily, used, 7_600),
            }
            for used in uses
        ],
        "shared": [
            {
                "daily": daily,
                "share": share,
                "used": used,
                "room": postings.room(daily, share, used),
                "steps": plain(steps),
                "free": 7_600,
                "minted": postings.minted(steps, daily, used, 7_600, postings.room(daily, share, used)),
            }
            for share in (0, 250, 400, 1_000)
            for used in (0, 245_000, 250_000, 399_999, 999_000, 2_000_000)
        ],
        "withheld": [
            {"permille": permille, "pay": pay, "withheld": postings.withheld(permille, pay)}
            for permille in (0, 333, 500, 1_000)
            for pay in (0, 1, 7_600, 10**12)
        ],
        "tax": [
            {"rules": to_json(rules), "shared": shared, "tax": prices.tax(rules, shared)}
            for rules in (Rules(), Rules(prices=PricesSection(tax=7, tax_shared=0)))
            for shared in (False, True)
        ],
        "postings": [
            {"event": event, "arguments": arguments, "postings": plain(moved)} for event, arguments, moved in events
        ],
    }


def tree() -> Json:
    """Roots, inclusion and consistency proofs over leaves 0x00, 0x01, 0x02 ..."""
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(17)]
    sizes = (1, 2, 3, 4, 7, 8, 17)
    return {
        "leaf": {
            "leaf": codec.encode(examples.LEAF).hex(),
            "hash": merkle.leaf_hash(codec.encode(examples.LEAF)).hex(),
        },
        "roots": [merkle.root_of(leaves[:size]).hex() for size in range(len(leaves) + 1)],
        "inclusion": [
            {
                "size": size,
                "index": index,
                "proof": [item.hex() for item in merkle.inclusion_proof(leaves[:size], index)],
            }
            for size in sizes
            for index in sorted({0, size // 2, size - 1})
        ],
        "consistency": [
            {
                "earlier": earlier,
                "size": size,
                "proof": [item.hex() for item in merkle.consistency_proof(leaves[:size], earlier)],
            }
            for size in sizes
            for earlier in sorted({0, 1, size // 2, size - 1, size})
        ],
    }


def stream() -> Json:
    """Frames of the direct stream, each behind its length, and the body of an opening."""
    examples_of_frames: list[frames.Frame] = [
        frames.Progressed(1, 30),
        frames.Preview(b"\xff\xd8\xff"),
        frames.Alive(),
        frames.Start(0, "image/png", 9),
        frames.Chunk(1, b"a picture"),
        frames.Text(0, "Because "),
        frames.Text(1, "空"),
        frames.Final(2, b.a_salt(2), "stop", b.signed(b.a_receipt()).raw),
        frames.Failed("prefix_unsupported", "this engine begins anew"),
    ]
    opening = b.signed(b.an_opening()).raw
    bad: list[tuple[str, str, bytes]] = [
        ("longer than a frame may be", "too_large", (frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big")),
        ("an unknown kind", "malformed", _framed(["sound", 0])),
        ("without its text", "malformed", _framed(["text", 0])),
        ("a number that is none", "malformed", _framed(["text", "0", "a"])),
        ("a map", "malformed", _framed({"text": 0})),
        ("nothing", "malformed", bytes(4)),
    ]
    return {
        "frames": [
            {"kind": kind, "elements": elements, "encoded": frames.encode_frame(frame).hex()}
            for frame in examples_of_frames
            for kind, *elements in [plain(frame)]
        ],
        "openings": [
            {"elements": plain(body), "encoded": codec.encode(body).hex()}
            for body in (
                frames.OpenBody(opening),
                frames.OpenBody(opening, codec.encode(b.a_text_private()), "Because "),
            )
        ],
        "refused": [{"case": case, "code": code, "encoded": raw.hex()} for case, code, raw in bad],
    }


def _framed(value: object) -> bytes:
    raw: bytes = msgpack.packb(value)
    return len(raw).to_bytes(4, "big") + raw


def refusals() -> Json:
    """Bodies and private parts that are wrong, and the code that answers each."""
    work = {"image": ImageWork(), "text": TextWork()}
    private: list[tuple[str, str, str | None, dict[str, object]]] = [
        ("guidance for two passes", "image", None, {"kind": "image", "prompt": "", "salt": bytes(32)}),
        (
            "no guidance, and two passes are paid for",
            "image",
            "private_part_mismatch",
            {"kind": "image", "prompt": "", "salt": bytes(32), "guidance": 1_000},
        ),
        ("a text for a picture", "image", "bad_body", {"kind": "text", "prompt": "x", "salt": bytes(32)}),
        ("neither messages nor prompt", "text", "bad_value", {"kind": "text", "salt": bytes(32)}),
        (
            "messages and prompt",
            "text",
            "bad_value",
            {"kind": "text", "prompt": "x", "messages": [{"role": "user", "content": "y"}], "salt": bytes(32)},
        ),
        (
            "an unknown role",
            "text",
            "bad_body",
            {"kind": "text", "messages": [{"role": "tool", "content": "y"}], "salt": bytes(32)},
        ),
        (
            "a seed that is too large",
            "text",
            "bad_body",
            {"kind": "text", "prompt": "x", "seed": 2**53, "salt": bytes(32)},
        ),
        ("a short salt", "text", "bad_body", {"kind": "text", "prompt": "x", "salt": bytes(31)}),
        (
            "a critical field",
            "text",
            "unknown_critical_field",
            {"kind": "text", "prompt": "x", "salt": bytes(32), "!x": 1},
        ),
    ]
    return {
        "private": [
            {"case": case, "code": code, "work": plain(work[kind]), "encoded": msgpack.packb(fields).hex()}
            for case, kind, code, fields in private
        ],
        "bodies": [
            {"kind": kind, "case": case, "code": "bad_body", "encoded": msgpack.packb(fields).hex()}
            for kind, case, fields in _bad_bodies()
        ],
    }


def _bad_bodies() -> list[tuple[str, str, Any]]:
    """For each kind with a required field: without the first one; and an array in place of the map."""
    found: list[tuple[str, str, Any]] = []
    bodies: list[SessionMessage | Document] = [*examples.FULL_MESSAGES, *examples.FULL_DOCUMENTS]
    for body in bodies:
        fields = plain_fields(body)
        required = [field.encode_name for field in msgspec.structs.fields(body) if field.required]
        if required:
            rest = {name: value for name, value in fields.items() if name != required[0]}
            found.append((body.KIND, f"without {required[0]}", rest))
        found.append((body.KIND, "an array", []))
    found += [
        ("request", "a pseudonym of 15 bytes", plain_fields(b.a_request()) | {"user": bytes(15)}),
        *(
            ("profile", f"a name {why}", {"version": 1, "name": name})
            for why, name in (
                ("of 31 characters", "x" * 31),
                ("that is empty", ""),
                ("with a number sign", "Ada#100"),
                ("with a space at its end", "Ada "),
                ("with a line break", "A\nda"),
                ("with a mark that turns the direction of text", "A\u202eda"),
            )
        ),
        ("transfer", "of nothing", plain_fields(b.a_transfer()) | {"amount": 0}),
        ("relay_ticket", "a digest of 31 bytes", plain_fields(b.a_relay_ticket()) | {"certificate": bytes(31)}),
        ("award", "without a reason to read", plain_fields(b.an_award()) | {"reason": ""}),
        ("act", "a suspension without an end", plain_fields(b.an_act()) | {"act": "suspend"}),
        ("act", "a ban with an end", plain_fields(b.an_act()) | {"act": "ban", "until": b.NOW}),
        ("act", "a lift of nothing", plain_fields(b.an_act()) | {"act": "lift", "account": 0}),
        ("act", "a return to itself", plain_fields(b.an_act()) | {"act": "return", "amount": 1, "to": 100}),
        *(
            (
                "act",
                f"a block of {block}",
                plain_fields(b.an_act("block", block="192.0.2.0/24", until=1)) | {"block": block},
            )
            for block in ("192.0.2.7/32", "192.0.2.7/24", "here", "2001:db8::/64")
        ),
    ]
    return found


def plain_fields(body: msgspec.Struct) -> dict[str, object]:
    """The fields of a body as msgpack takes them."""
    fields: dict[str, object] = msgspec.to_builtins(body, builtin_types=(bytes,))
    return fields


def rules() -> Json:
    """The default rules as published, and texts that are refused."""
    return {
        "default": to_json(Rules()),
        "valid": [{"text": "{}", "same_as_default": True}, {"text": '{"prices":{"tax":0}}', "same_as_default": False}],
        "refused": ["", "[]", '{"prices":{"tax":"much"}}', '{"prices":{"tax":-1}}', '{"prices":{"tax":0.5}}'],
    }


FILES: dict[str, Callable[[], Json]] = {
    "keys.json": keys,
    "links.json": links,
    "envelopes.json": envelopes,
    "bodies.json": bodies,
    "strictness.json": strictness,
    "digests.json": digests,
    "prices.json": price_vectors,
    "kudos.json": kudos,
    "merkle.json": tree,
    "stream.json": stream,
    "refusals.json": refusals,
    "rules.json": rules,
}


def text_of(name: str) -> str:
    """The content of one file."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=True) + "\n"


def main(folder: Path) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text(text_of(name), "ascii", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
