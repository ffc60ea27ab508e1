"""The stream of a real worker, knocked at by hand."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp

from protocol import codec
from protocol.documents import Lease, Opening, PeerRecord, sign
from protocol.envelope import Envelope
from protocol.frames import Frame, FrameReader, OpenBody
from tests.support.raw_peer import Asked, RawPeer


@dataclass
class Door:
    """A job leased to the real worker: what its requester needs to open the stream."""

    asked: Asked
    lease: Envelope
    record: PeerRecord
    root: bytes

    @classmethod
    async def found(cls, requester: RawPeer, asked: Asked) -> Door:
        """Wait until the tracker says who has the job and where."""
        record = (await requester.envelope("peer_record")).open(PeerRecord)
        return cls(asked, await requester.envelope("lease"), record, requester.root)

    def opening(self, **fields: object) -> Envelope:
        """The opening, right unless `fields` say otherwise."""
        lease = self.lease.open(Lease)
        body: dict[str, object] = {
            "job": lease.job,
            "attempt": lease.attempt,
            "certificate": self.record.certificate,
            "lease": self.lease.raw,
        }
        return sign(Opening(**body | fields), self.asked.job_key, self.root)  # type: ignore[arg-type]

    async def post(self, opening: bytes, private: bytes | None = None) -> tuple[int, list[Frame]]:
        """Knock; status and frames."""
        body = codec.encode(OpenBody(opening, self.asked.private if private is None else private))
        pin = aiohttp.Fingerprint(self.record.certificate)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"https://{self.record.addresses[0]}/stream", data=body, ssl=pin) as response,
        ):
            return response.status, list(FrameReader().feed(await response.read()))
