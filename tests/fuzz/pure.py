"""Targets without any I/O: what reads bytes has to raise refusals and nothing else."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

import msgspec

from peer.assembly import Assembly, Misbehaved
from peer.opening import check_opening
from protocol import codec, frames, links
from protocol.documents import parse_document
from protocol.envelope import check_delegation, check_document_context, decode_challenge, parse
from protocol.errors import Refusal
from protocol.kinds import DOCUMENTS
from protocol.messages import FROM_PEER, FROM_TRACKER
from protocol.rules import from_json
from protocol.work import read_private
from tests.fuzz.script import MAX_STEPS, Script
from tests.fuzz.target import Fault, Target
from tests.support.builders import ROOT, SERVING, a_digest, a_key, a_lease, a_public_part, a_request, a_text_work
from tracker import proxy_protocol
from tracker.doors import household_of
from tracker.forwarded import FORWARDED, NOBODY, X_FORWARDED_FOR, Client, Trust, parse_address
from tracker.pace import Heads

#: Proxies that are trusted: then every hop that is named is looked at.
EVERYBODY = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
KINDS = (*FROM_PEER.values(), *FROM_TRACKER.values(), *DOCUMENTS.values())


class Codec(Target):
    """Every body, challenges, openings, private parts, rules and links, from the bytes as they are."""

    name = "codec"

    def feed(self, raw: bytes) -> None:
        for kind in KINDS:
            with suppress(Refusal):
                body = codec.decode(raw, kind)
                again = codec.encode(body)
                if codec.decode(again, kind) != body:
                    raise Fault(f"{body!r} is another one when it has been encoded and decoded")
        for read in (decode_challenge, read_private, frames.decode_frame):
            with suppress(Refusal):
                read(raw)
        text = raw.decode("utf-8", "replace")
        with suppress(Refusal, links.BadLink):
            links.parse_link(text)
        with suppress(msgspec.DecodeError):
            from_json(text)
        for header in (X_FORWARDED_FOR, FORWARDED):
            client = Trust(EVERYBODY, header).client(Client(parse_address("127.0.0.1")), [text])
            household_of(client.address)
        household_of(parse_address(text))
        with suppress(proxy_protocol.BadHeader):
            at = 0
            while wanted := proxy_protocol.still_wanted(raw[:at]):
                at = min(at + wanted, len(raw))
                if at == len(raw):
                    break
            else:
                household_of((proxy_protocol.client_in(raw[:at]) or NOBODY).address)


class Envelopes(Target):
    """Envelopes: shape, context, key, signature, then the body of the kind that they claim."""

    name = "envelope"

    def feed(self, raw: bytes) -> None:
        for kind in DOCUMENTS.values():
            with suppress(Refusal):
                parse_document(raw, kind)
        with suppress(Refusal):
            check_opening(
                raw,
                root=ROOT.public,
                serving=SERVING.public,
                worker=a_key(2).public,
                certificate=a_digest("certificate"),
                known_lease=lambda attempt: None,
            )
        with suppress(Refusal):
            envelope = parse(raw)
            if parse(envelope.raw) != envelope:
                raise Fault("an envelope that is another one when it is parsed again")
            for body in (FROM_PEER, FROM_TRACKER, DOCUMENTS):
                with suppress(Refusal):
                    envelope.open(body.get(envelope.kind, KINDS[0]))
            with suppress(Refusal):
                check_delegation(envelope, ROOT.public)
            check_document_context(envelope, ROOT.public)
            envelope.verify()


class Stream(Target):
    """A worker's stream in pieces, cut anywhere, as a requester puts it together."""

    name = "stream"

    def feed(self, raw: bytes) -> None:
        script = Script(raw)
        work = a_text_work(max_tokens=20) if script.number(2) else None
        lease = a_lease(a_request(a_public_part(work)))
        reader, assembly, whole = frames.FrameReader(), Assembly(lease, ROOT.public), frames.FrameReader()
        cut: list[frames.Frame] = []
        fed = b""
        with suppress(Refusal, Misbehaved):
            for _ in range(MAX_STEPS):
                if not script.more:
                    break
                data = script.piece()
                fed += data
                for frame in reader.feed(data):
                    cut.append(frame)
                    complete = assembly.take(frame)
                    if complete is not None:
                        complete.fault(lease, ROOT.public, cancelled=False)
                        return
            if cut != list(whole.feed(fed)):
                raise Fault("the same bytes in other pieces are other frames")


class Heading(Target):
    """The heads of WebSocket frames, in pieces cut anywhere."""

    name = "heads"

    def feed(self, raw: bytes) -> None:
        script, cut, whole = Script(raw), Heads(), Heads()
        fed, largest = b"", 0
        for _ in range(MAX_STEPS):
            if not script.more:
                break
            data = script.piece()
            fed += data
            largest = max(largest, cut.feed(data))
        found = whole.feed(fed)
        if (largest, cut.ended, cut.size, cut.unfinished) != (found, whole.ended, whole.size, whole.unfinished):
            raise Fault("the same bytes in other pieces are other frames")


class Planted(Target):
    """Has a fault that a fuzzer finds soon; no part of Potluck."""

    name = "planted"

    def feed(self, raw: bytes) -> None:
        if raw.startswith(b"!"):
            raise Fault("planted")
