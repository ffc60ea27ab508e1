"""The byte vectors, both ways: what they say is what this code reads and writes, and it writes these very files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import codec, documents, messages
from protocol.digests import Artifact, commitment, output_digest, private_digest
from protocol.envelope import (
    Challenge,
    Inbound,
    check_delegation,
    decode_challenge,
    encode_challenge,
    parse,
    seal,
)
from protocol.errors import REFUSALS, BadKey, Refusal
from protocol.frames import FrameReader, OpenBody, encode_frame
from protocol.keys import SigningKey, check_key, parse_key, show_key, verify
from protocol.kinds import DOCUMENTS
from protocol.links import BadLink, Link, parse_link
from protocol.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from protocol.postings import (
    Postings,
    award,
    hold,
    leave,
    mint_rate,
    minted,
    release,
    room,
    settle,
    share,
    transfer,
    vest,
    withheld,
)
from protocol.prices import price, tax, used_price
from protocol.rules import Rules, from_json, to_json
from protocol.work import ImagePrivate, ImageWork, TextPrivate, TextWork, Work, check_private
from tests.protocol import make_vectors

WORKS: dict[str, Any] = {"image": ImageWork, "text": TextWork}
PRIVATE: dict[str, Any] = {"image": ImagePrivate, "text": TextPrivate}
KINDS: dict[str, Any] = {
    **messages.FROM_PEER,
    **messages.FROM_TRACKER,
    **DOCUMENTS,
    "leaf": documents.Leaf,
    "evidence": documents.Evidence,
}


def vectors(name: str) -> Any:
    return json.loads((make_vectors.FOLDER / name).read_text("ascii"))


def unhexed(value: Any) -> Any:
    """JSON as the files hold it, with `{"hex": ...}` turned into bytes."""
    match value:
        case {"hex": str(text)} if len(value) == 1:
            return bytes.fromhex(text)
        case dict():
            return {name: unhexed(item) for name, item in value.items()}
        case list():
            return [unhexed(item) for item in value]
    return value


def made(value: Any, of: Any) -> Any:
    """The struct that a vector's fields describe."""
    return msgspec.convert(unhexed(value), of, builtin_types=(bytes,))


def code_of(call: Callable[..., object], *arguments: object) -> str | None:
    try:
        call(*arguments)
    except Refusal as refusal:
        return refusal.code
    return None


def differing(folder: Path) -> list[str]:
    """The files in `folder` that this code would write otherwise, or not at all."""
    names = {path.name for path in folder.iterdir()} | set(make_vectors.FILES)
    return sorted(
        name
        for name in names
        if name not in make_vectors.FILES
        or not (folder / name).is_file()
        or (folder / name).read_bytes() != make_vectors.text_of(name).encode()
    )


def test_the_files_are_what_this_code_writes() -> None:
    assert differing(make_vectors.FOLDER) == []


def test_a_changed_byte_a_missing_and_a_stray_file_are_found(tmp_path: Path) -> None:
    make_vectors.main(tmp_path)
    assert differing(tmp_path) == []

    raw = bytearray((tmp_path / "merkle.json").read_bytes())
    raw[-20] ^= 1
    (tmp_path / "merkle.json").write_bytes(raw)
    (tmp_path / "keys.json").unlink()
    (tmp_path / "stray.json").touch()

    assert differing(tmp_path) == ["keys.json", "merkle.json", "stray.json"]


def test_keys() -> None:
    rows = vectors("keys.json")
    for row in rows["valid"]:
        public = SigningKey(bytes.fromhex(row["seed"])).public
        assert public.hex() == row["public"]
        assert show_key(public) == row["shown"]
        assert parse_key(row["shown"]) == public
    for row in rows["refused"]:
        with pytest.raises(BadKey):
            check_key(bytes.fromhex(row["public"]))
    for shown in rows["refused_shown"]:
        with pytest.raises(BadKey):
            parse_key(shown)
    for row in rows["signatures"]:
        key, message, signature = (bytes.fromhex(row[name]) for name in ("key", "message", "signature"))
        assert code_of(verify, key, message, signature) == row["code"], row["why"]


def test_every_encoding_of_small_order_and_every_non_canonical_one_is_listed() -> None:
    whys = [row["why"] for row in vectors("keys.json")["refused"]]

    # Five values of y, two of which (0 and 1) also have a form above the prime; each with either sign.
    assert whys.count("small order") == 14
    assert whys.count("not canonical") == 38


def test_links() -> None:
    rows = vectors("links.json")
    for row in rows["valid"]:
        link = Link(
            row["url"], bytes.fromhex(row["root"]), row["name"], bytes.fromhex(row["certificate"]), row["members"]
        )
        assert str(link) == row["link"]
        assert parse_link(row["link"]) == link
        assert link.needs_insecure == row["needs_insecure"]
    for text in rows["refused"]:
        with pytest.raises((BadLink, BadKey)):
            parse_link(text)


def test_envelopes() -> None:
    rows = vectors("envelopes.json")
    for row in rows["envelopes"]:
        parts = {name: bytes.fromhex(row[name]) for name in row if name != "kind"}
        envelope = seal(row["kind"], parts["body"], SigningKey(parts["seed"]), parts["context"])
        assert (envelope.raw, envelope.signature) == (parts["envelope"], parts["signature"])
        assert (envelope.signed_bytes, envelope.digest) == (parts["signed_bytes"], parts["digest"])
        again = parse(parts["envelope"])
        assert again == envelope
        again.verify()
    challenge = made(rows["challenge"]["fields"], Challenge)
    assert encode_challenge(challenge).hex() == rows["challenge"]["encoded"]
    assert decode_challenge(bytes.fromhex(rows["challenge"]["encoded"])) == challenge
    delegation = rows["delegation"]
    check_delegation(parse(bytes.fromhex(delegation["envelope"])), bytes.fromhex(delegation["root"]))


@pytest.mark.parametrize("row", vectors("envelopes.json")["received"], ids=lambda row: row["case"])
def test_a_received_envelope(row: dict[str, Any]) -> None:
    facts = vectors("envelopes.json")["receiver"]
    receiver = Inbound(bytes.fromhex(facts["root"]), bytes.fromhex(facts["session"]), facts["next"])

    def receive() -> None:
        envelope = parse(bytes.fromhex(row["envelope"]), limit=facts["limit"])
        receiver.check(envelope, bytes.fromhex(facts["key"]))
        envelope.open(messages.AskAccount)

    assert code_of(receive) == row["code"]


def type_of(row: dict[str, Any]) -> Any:
    match row["family"]:
        case "work":
            return WORKS[row["fields"]["kind"]]
        case "private part":
            return PRIVATE[row["fields"]["kind"]]
    return KINDS[row["kind"]]


@pytest.mark.parametrize("row", vectors("bodies.json"), ids=lambda row: row["kind"])
def test_a_body(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["encoded"])
    body = made(row["fields"], type_of(row))

    assert codec.encode(body) == raw
    assert codec.decode(raw, type(body)) == body


def test_every_kind_has_a_body_with_each_of_its_fields() -> None:
    rows = vectors("bodies.json")
    fields: dict[str, set[str]] = {}
    for row in rows:
        fields.setdefault(row["kind"], set()).update(row["fields"])

    missing = {
        kind: sorted(names)
        for kind, of in KINDS.items()
        if (names := {field.encode_name for field in msgspec.structs.fields(of)} - fields.get(kind, set()))
    }
    assert set(KINDS) <= set(fields)
    assert missing == {}


@pytest.mark.parametrize("row", vectors("strictness.json"), ids=lambda row: row["case"])
def test_strictness(row: dict[str, Any]) -> None:
    assert code_of(codec.check_strict, bytes.fromhex(row["encoded"])) == row["code"]


def test_digests() -> None:
    rows = vectors("digests.json")
    for row in rows["private"]:
        assert private_digest(bytes.fromhex(row["private"])).hex() == row["digest"]
    for row in rows["output"]:
        artifacts = [Artifact(kind, size, bytes.fromhex(digest)) for kind, size, digest in row["artifacts"]]
        salt = bytes.fromhex(row["salt"])
        assert codec.encode([salt, artifacts]).hex() == row["encoded"]
        assert output_digest(salt, artifacts).hex() == row["digest"]
    for row in rows["commitment"]:
        parts = [bytes.fromhex(part) for part in row["parts"]]
        assert commitment(bytes.fromhex(row["salt"]), *parts).hex() == row["digest"]


def a_work(fields: dict[str, Any]) -> Work:
    work: Work = made(fields, WORKS[fields["kind"]])
    return work


@pytest.mark.parametrize("table", vectors("prices.json"), ids=lambda table: table["name"])
def test_prices(table: dict[str, Any]) -> None:
    rules = from_json(table["rules"])
    for row in table["prices"]:
        work = a_work(row["work"])
        assert "plugin" in row or price(rules, work, table["model"]) == row["price"]
        for used, amount in row["used"]:
            assert used_price(rules, work, table["model"], used, row["price"]) == amount


def test_kudos() -> None:
    rows = vectors("kudos.json")
    for row in rows["shares"]:
        parts = share(row["price"], row["tax"], row["available"])
        assert (parts.paid, parts.free, parts.tax_paid) == (row["paid"], row["free"], row["tax_paid"])
    for row in rows["mint"]:
        steps = tuple((up_to, rate) for up_to, rate in row["steps"])
        assert mint_rate(steps, row["daily"], row["used"]) == row["rate"]
        assert minted(steps, row["daily"], row["used"], row["free"]) == row["minted"]
    for row in rows["shared"]:
        steps = tuple((up_to, rate) for up_to, rate in row["steps"])
        assert room(row["daily"], row["share"], row["used"]) == row["room"]
        assert minted(steps, row["daily"], row["used"], row["free"], row["room"]) == row["minted"]
    for row in rows["withheld"]:
        assert withheld(row["permille"], row["pay"]) == row["withheld"]
    for row in rows["tax"]:
        assert tax(from_json(row["rules"]), row["shared"]) == row["tax"]
    events: dict[str, Callable[..., Postings]] = {
        "hold": hold,
        "release": release,
        "refund": release,
        "settle": settle,
        "award": award,
        "vest": vest,
        "transfer": transfer,
        "leave": leave,
        "recovered": settle,
        "charged": hold,
    }
    for row in rows["postings"]:
        arguments = row["arguments"]
        by_place = row["event"] in ("hold", "release", "refund", "award", "charged")
        moved = events[row["event"]](*arguments.values()) if by_place else events[row["event"]](**arguments)
        assert [list(posting) for posting in moved] == row["postings"]
        assert sum(amount for _, amount in moved) == 0


def test_merkle() -> None:
    rows = vectors("merkle.json")
    leaves = [leaf_hash(bytes([number])) for number in range(len(rows["roots"]) - 1)]
    roots = [bytes.fromhex(root) for root in rows["roots"]]
    assert [root_of(leaves[:size]) for size in range(len(roots))] == roots
    assert leaf_hash(bytes.fromhex(rows["leaf"]["leaf"])).hex() == rows["leaf"]["hash"]
    for row in rows["inclusion"]:
        size, index, proof = row["size"], row["index"], [bytes.fromhex(item) for item in row["proof"]]
        assert inclusion_proof(leaves[:size], index) == proof
        assert verify_inclusion(leaves[index], index, size, proof, roots[size])
    for row in rows["consistency"]:
        earlier, size, proof = row["earlier"], row["size"], [bytes.fromhex(item) for item in row["proof"]]
        assert consistency_proof(leaves[:size], earlier) == proof
        assert verify_consistency(earlier, roots[earlier], size, roots[size], proof)


def test_stream() -> None:
    rows = vectors("stream.json")
    for row in rows["frames"]:
        raw = bytes.fromhex(row["encoded"])
        [frame] = FrameReader().feed(raw)
        assert encode_frame(frame) == raw
        assert make_vectors.plain(frame) == [row["kind"], *row["elements"]]
    for row in rows["openings"]:
        body = codec.decode(bytes.fromhex(row["encoded"]), OpenBody)
        assert codec.encode(body).hex() == row["encoded"]
        assert [body.opening, body.private, body.prefix] == unhexed(row["elements"])
    for row in rows["refused"]:
        assert code_of(lambda raw: list(FrameReader().feed(raw)), bytes.fromhex(row["encoded"])) == row["code"]


def test_refusals() -> None:
    rows = vectors("refusals.json")
    for row in rows["private"]:
        work, raw = a_work(row["work"]), bytes.fromhex(row["encoded"])
        assert code_of(check_private, raw, work) == row["code"], row["case"]
    for row in rows["bodies"]:
        raw = bytes.fromhex(row["encoded"])
        assert code_of(codec.decode, raw, KINDS[row["kind"]]) == row["code"], row


def test_rules() -> None:
    rows = vectors("rules.json")
    assert to_json(Rules()) == rows["default"]
    assert from_json(rows["default"]) == Rules()
    for row in rows["valid"]:
        assert (from_json(row["text"]) == Rules()) == row["same_as_default"]
    for text in rows["refused"]:
        with pytest.raises(msgspec.DecodeError):
            from_json(text)


def test_every_code_in_the_vectors_is_one_of_the_standard() -> None:
    def codes(value: Any) -> set[str]:
        match value:
            case dict():
                here = {value["code"]} if isinstance(value.get("code"), str) else set()
                return here.union(*(codes(item) for item in value.values()))
            case list():
                return set().union(*(codes(item) for item in value))
        return set()

    named = set().union(*(codes(vectors(name)) for name in make_vectors.FILES if name != "bodies.json"))
    assert named - set(REFUSALS) == set()
    assert len(named) > 12
