"""Word lists over HTTP, by their digests, for whoever checks the same prompts: `/filter/DIGEST`."""

from __future__ import annotations

from aiohttp import web

from tracker.content_filter import ContentFilter

FILTER = web.AppKey("filter", ContentFilter)


def add_filter(app: web.Application, content_filter: ContentFilter) -> None:
    """Have the application answer `/filter/DIGEST`."""
    app[FILTER] = content_filter
    app.add_routes([web.get(r"/filter/{digest:[0-9a-f]{64}}", _list)])


async def _list(request: web.Request) -> web.Response:
    found = request.app[FILTER].find(bytes.fromhex(request.match_info["digest"]))
    if found is None:
        raise web.HTTPNotFound(text="no list with this digest is in force: /rules names those that are")
    # What a digest names never changes.
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return web.Response(body=found.raw, content_type="text/plain", charset="utf-8", headers=headers)
