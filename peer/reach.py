"""`POST /reach`: the tracker tests whether people can connect to us, and we sign that it is us who answers."""

from __future__ import annotations

import asyncio

from aiohttp import web

from protocol.documents import REACH_CHALLENGE_BYTES, ReachProof, sign
from protocol.keys import SigningKey

MEDIA_TYPE = "application/octet-stream"
BODY_SECONDS = 5.0


def reach_routes(key: SigningKey, root: bytes, certificate: bytes) -> list[web.RouteDef]:
    """Answers every challenge of the right size; what is signed says nothing but that this key answers here."""

    async def prove(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                challenge = await request.read()
        except TimeoutError:
            challenge = b""
        if len(challenge) != REACH_CHALLENGE_BYTES:
            response = web.Response(status=400, text=f"wanted a challenge of {REACH_CHALLENGE_BYTES} bytes\n")
            response.force_close()
            return response
        proof = sign(ReachProof(challenge=challenge, certificate=certificate), key, root)
        return web.Response(body=proof.raw, content_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    return [web.post("/reach", prove)]
