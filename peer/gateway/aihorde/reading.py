"""What can be read without asking for anything: models, load, news, documents, users and workers; and transfers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib import metadata
from typing import Any

from aiohttp import web

from peer.client import system_clock
from peer.events import Refused, Unreachable
from peer.gateway import bodies
from peer.gateway.aihorde import census, documents, people
from peer.gateway.aihorde.asking import SHOWN
from peer.gateway.aihorde.bodies import TransferInput
from peer.gateway.aihorde.wrong import Wrong
from peer.gateway.asks import Caller
from peer.gateway.door import CALLER, HORDES, RUNNING
from peer.gateway.errors import Troubled
from peer.giving import transfer
from protocol.amounts import read_account, read_kudos
from protocol.errors import BadKey
from protocol.keys import parse_key
from protocol.work import Kind

#: Parts of a tracker's list of workers that are read for one answer.
MAX_PARTS = 8
#: Transfers one after the other: each is in a file until it is answered, so that none moves kudos twice.
GIVING: web.AppKey[asyncio.Lock] = web.AppKey("GIVING", asyncio.Lock)

_KINDS: tuple[Kind, ...] = ("image", "text")


async def heartbeat(request: web.Request) -> web.Response:
    """`GET /status/heartbeat`."""
    try:
        version = metadata.version("potluck")
    except metadata.PackageNotFoundError:
        version = "0"
    return web.json_response({"message": "OK", "version": version})


async def modes(request: web.Request) -> web.Response:
    """`GET /status/modes`."""
    return web.json_response({"maintenance_mode": False, "invite_only_mode": False, "raid_mode": False})


async def nothing(request: web.Request) -> web.Response:
    """Lists of what a horde has not: news, teams, styles, collections."""
    return web.json_response([])


async def models(request: web.Request) -> web.Response:
    """`GET /status/models`."""
    kind = _kind(request)
    found = await _models(request, kind)
    return web.json_response(census.wanted(found, _number(request, "min_count"), _number(request, "max_count")))


async def model(request: web.Request) -> web.Response:
    """`GET /status/models/{name}`: a list of one."""
    name = request.match_info["name"]
    both = [*await _models(request, "image"), *await _models(request, "text")]
    return web.json_response([found for found in both if found["name"] == name])


async def performance(request: web.Request) -> web.Response:
    """`GET /status/performance`."""
    return web.json_response(census.performance((await _scrapes(request)).values()))


async def image_totals(request: web.Request) -> web.Response:
    """`GET /stats/img/totals`."""
    return web.json_response(census.image_totals((await _scrapes(request)).values()))


async def text_totals(request: web.Request) -> web.Response:
    """`GET /stats/text/totals`."""
    return web.json_response(census.text_totals((await _scrapes(request)).values()))


async def model_totals(request: web.Request) -> web.Response:
    """`GET /stats/img/models` and `/stats/text/models`."""
    return web.json_response(census.model_totals())


async def document(request: web.Request) -> web.Response:
    """`GET /documents/terms`, `/documents/privacy` and `/documents/sponsors`."""
    form = request.query.get("format", "html")
    if form not in documents.FORMATS:
        raise Wrong("BadRequest", f"format {form[:40]!r}: wanted html or markdown", "format")
    return web.json_response({form: documents.document(request.match_info["name"], form)})


async def find_user(request: web.Request) -> web.Response:
    """`GET /find_user`: whose key this is."""
    return web.json_response(await _own(request) or await _nobody(request))


async def users(request: web.Request) -> web.Response:
    """`GET /users`: accounts whose owners want them seen, and that trackers list: services."""
    if (_number(request, "page") or 1) > 1:
        return web.json_response([])
    found = await request.app[HORDES].scraped(what="services")
    pages = found.get("services")
    listed = [page for page in (pages if isinstance(pages, list) else []) if isinstance(page, dict)]
    return web.json_response([people.other(page, system_clock()) for page in listed])


async def user(request: web.Request) -> web.Response:
    """`GET /users/{id}`, by number: of the first horde's accounts."""
    id = request.match_info["id"]
    if not (id.isascii() and id.isdecimal() and len(id) <= 18):
        raise Wrong("UserNotFound", f"user {id[:60]!r}: wanted the number alone, as the 123 of Ada#123")
    if int(id) == 0:
        return web.json_response(await _nobody(request))
    own = await _own(request)
    if own is not None and own["id"] == int(id):
        return web.json_response(own)
    try:
        page = await request.app[HORDES].scraped(what=f"accounts/{int(id)}")
    except Troubled as error:
        raise Wrong(
            "UserNotFound", f"account {id} is not public, or there is none: its owner can change that"
        ) from error
    return web.json_response(people.other(page, system_clock()))


async def workers(request: web.Request) -> web.Response:
    """`GET /workers`."""
    name, kind = request.query.get("name", ""), request.query.get("type", "")
    found = [worker async for worker in _workers(request)]
    if kind:
        found = [worker for worker in found if worker["type"] == kind]
    if name:
        found = [worker for worker in found if worker["name"] == name.lower()]
    return web.json_response(found)


async def worker(request: web.Request) -> web.Response:
    """`GET /workers/{id}`."""
    id = request.match_info["id"]
    try:
        parse_key(id)
    except BadKey as error:
        raise Wrong("WorkerNotFound", f"no worker has this id: {error}") from error
    for horde in request.app[HORDES].links:
        try:
            entry = await request.app[HORDES].scraped(horde, f"workers/{id}")
        except Troubled:
            continue
        if shown := people.workers(entry, system_clock()):
            return web.json_response(shown[0])
    raise Wrong("WorkerNotFound", f"worker {id} is not here now: /workers lists those that are")


async def worker_by_name(request: web.Request) -> web.Response:
    """`GET /workers/name/{name}`."""
    name = request.match_info["name"]
    async for found in _workers(request):
        if found["name"] == name.lower():
            return web.json_response(found)
    raise Wrong("WorkerNotFound", f"no worker here is called {name[:60]!r}: /workers lists those that are")


async def give(request: web.Request) -> web.Response:
    """`POST /kudos/transfer`, of our account's kudos."""
    if request[CALLER] is not Caller.MEMBER:
        raise Wrong("AnonForbidden", "nobody in particular has no kudos to give: send the gateway's access key")
    said = await bodies.read(request, TransferInput)
    amount = said.amount if said.amount is not None else 0
    if amount < 0:
        raise Wrong("NegativeKudosTransfer", f"amount {amount}: wanted more than 0", "amount")
    try:
        thousandths = read_kudos(str(amount))
    except ValueError as error:
        raise Wrong("BadRequest", f"amount {error}", "amount") from error
    try:
        to = read_account(said.username or "")
    except ValueError as error:
        raise Wrong("UserNotFound", f"username {error}", "username") from error
    hordes = request.app[HORDES]
    client = await hordes.client(Caller.MEMBER)
    if to == client.account_number:
        raise Wrong("KudosTransferToSelf", f"account {to} is yours: name another one", "username")
    try:
        async with request.app[GIVING]:
            await transfer(client, to, thousandths, hordes.home.unanswered_transfer(client.link.root))
    except Refused as error:
        raise _not_given(error) from error
    return web.json_response({"transferred": thousandths / 1000})


async def no_alchemy(request: web.Request) -> web.Response:
    """`POST /interrogate/async`."""
    raise Wrong("NoValidWorkers", "no worker of a horde describes or enlarges pictures yet: ask for pictures or texts")


async def no_alchemy_request(request: web.Request) -> web.Response:
    """`GET` and `DELETE /interrogate/status/{id}`."""
    raise Wrong("RequestNotFound", f"there is no interrogation {request.match_info['id'][:100]} here: none is taken in")


def _not_given(error: Refused) -> Exception:
    codes = {"no_kudos": "KudosTransferNotEnough", "unknown_account": "UserNotFound"}
    return Wrong(codes[error.code], str(error)) if error.code in codes else error


async def _own(request: web.Request) -> dict[str, Any] | None:
    """Our account, if it is us who ask and we have one."""
    if request[CALLER] is not Caller.MEMBER:
        return None
    client = await request.app[HORDES].client(Caller.MEMBER)
    account = await client.account()
    if not account.number:
        return None
    active: dict[str, list[str]] = {"text": [], "image": [], "alchemy": []}
    for running in request.app[RUNNING].all(Caller.MEMBER):
        if not running.is_done and running in request.app[SHOWN]:
            active[running.ask.kind].append(running.id)
    return people.own(account, client.rules.limits.open_jobs, active)


async def _nobody(request: web.Request) -> dict[str, Any]:
    return people.nobody((await request.app[HORDES].rules(Caller.ANYBODY)).limits.anonymous_open_jobs)


async def _scrapes(request: web.Request) -> dict[str, dict[str, Any]]:
    """What each horde's tracker publishes; those that do not answer are left out."""
    hordes = request.app[HORDES]
    found = {}
    for horde in hordes.links:
        try:
            found[horde] = await hordes.scraped(horde)
        except (Unreachable, Troubled):
            continue
    return found


async def _models(request: web.Request, kind: Kind) -> Sequence[dict[str, Any]]:
    catalogue = await request.app[HORDES].catalogue()
    return census.models(catalogue.names(kind), census.queued(await _scrapes(request)))


async def _workers(request: web.Request) -> AsyncIterator[dict[str, Any]]:
    hordes = request.app[HORDES]
    for horde in hordes.links:
        after = ""
        for _ in range(MAX_PARTS):
            try:
                part = await hordes.scraped(horde, f"workers?after={after}" if after else "workers")
            except (Unreachable, Troubled):
                break
            entries = part.get("workers")
            for entry in entries if isinstance(entries, list) else []:
                for shown in people.workers(entry, system_clock()) if isinstance(entry, dict) else []:
                    yield shown
            after = str(part.get("after") or "")
            if not after:
                break


def _kind(request: web.Request) -> Kind:
    said = request.query.get("type", "image") or "image"
    for kind in _KINDS:
        if said == kind:
            return kind
    raise Wrong("BadRequest", f"type {said[:40]!r}: wanted image or text", "type")


def _number(request: web.Request, name: str) -> int | None:
    said = request.query.get(name, "")
    if not said:
        return None
    if not (said.isascii() and said.isdecimal() and len(said) <= 18):
        raise Wrong("BadRequest", f"{name} {said[:40]!r}: wanted a whole number", name)
    return int(said)
