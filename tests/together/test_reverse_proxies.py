"""A tracker behind real reverse proxies, configured as docs/reverse-proxies.md shows it, and with TLS of its own.

The proxies are those of Debian. Everything comes by one port, with TLS: peers, jobs, pages. Addresses and ports are
seen through the proxy, and nobody can forge one. Connections that are quiet for long stay.
"""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from peer.commands.exits import Exit
from protocol.links import parse_link
from tests.support import proxies
from tests.support.horde import Horde, until
from tests.support.proxies import HOST, Authority, blocks, free_ports, needs_proxies, put_in, self_signed
from tests.support.raw_peer import RawPeer
from tracker.config import Settings, parse
from tracker.doors import Door, Places, Rounds, client_of
from tracker.porch import Porch
from tracker.tls import make_self_signed, read_certificate

pytestmark = [pytest.mark.slow, needs_proxies]

#: Windows has none, and no proxies of Debian either.
HANG_UP: int = getattr(signal, "SIGHUP", 0)
KINDS = ["nginx", "caddy"]
Put = Callable[[Path, int, int, Authority], AbstractAsyncContextManager[None]]

#: What is before the tracker: the documented configuration at this port of ours, before that port of the tracker.
BEFORE: dict[str, Put] = {
    "nginx": lambda folder, port, tracker, shown: proxies.nginx(folder, proxies.nginx_site(port, tracker, shown), port),
    "caddy": lambda folder, port, tracker, shown: proxies.caddy(folder, proxies.caddyfile(port, tracker, shown), port),
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


def documented(kind: str) -> str:
    """The block of horde.toml that the document shows for this."""
    found = [block for block in blocks("toml") if ("proxy_protocol" in block) == (kind == "stream")]
    return next(block for block in found if "trusted_proxies" in block)


def as_rules(block: str) -> str:
    """The lines of such a block as `Horde` takes them."""
    return "\n".join(f"server.{line}" for line in block.splitlines() if "=" in line) + "\n"


# A whole horde


@asynccontextmanager
async def behind(
    kind: str, folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, rules: str = ""
) -> AsyncIterator[Horde]:
    """A horde whose link leads to the proxy, and peers that believe its authority."""
    port, tracker = free_ports(2)
    said = put_in(documented(kind), {"wss://horde.example.org": f"wss://{HOST}:{port}", ":7345": f":{tracker}"})
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with Horde.open(folder, as_rules(said) + rules) as horde, BEFORE[kind](folder, port, tracker, authority):
        assert horde.link is not None
        assert (horde.link.url, horde.link.certificate) == (f"wss://{HOST}:{port}", b"")
        horde.door = replace(horde.link, url=f"ws://127.0.0.1:{tracker}")
        yield horde


async def asks_and_gets(horde: Horde, name: str, picture: Path) -> None:
    """Somebody joins, asks, gets, and looks how it goes; all by commands."""
    home = ("--home", str(horde.folder / name))
    await horde.run("peer", "join", str(horde.link), *home)
    ask = ("a red circle", "-o", str(picture), "--width", "64", "--height", "64", "--steps", "5")
    await horde.run("peer", "image", *ask, *home)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "workers" in await horde.run("peer", "status", *home)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.ci_slow
async def test_peers_jobs_and_pages_come_through_one_port_with_tls(
    kind: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind(kind, tmp_path, authority, monkeypatch) as horde:
        await horde.worker("ann", "--dry-run", "image")
        await asks_and_gets(horde, "bob", tmp_path / "picture.png")
        assert horde.link is not None
        url = horde.link.url.replace("wss", "https")
        connector = aiohttp.TCPConnector(ssl=authority.believed())
        async with aiohttp.ClientSession(connector=connector) as http:
            async with http.get(f"{url}/scrape") as answer:
                assert (await answer.json())["link"] == str(horde.link)
            for page in ("", "rules", "services", "healthz"):
                async with http.get(f"{url}/{page}") as answer:
                    assert answer.status == 200, page
        assert (await horde.audit())["ok"]


@pytest.mark.parametrize("kind", KINDS)
async def test_places_are_those_of_the_address_behind_the_proxy(
    kind: str, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind(kind, tmp_path, authority, monkeypatch, "limits.connections = 1\n") as horde:
        assert horde.link is not None
        url = f"{horde.link.url}/peer"

        @asynccontextmanager
        async def comes_from(address: str, **forged: str) -> AsyncIterator[None]:
            connector = aiohttp.TCPConnector(ssl=authority.believed(), local_addr=(address, 0))
            async with (
                aiohttp.ClientSession(connector=connector) as http,
                http.ws_connect(url, headers=forged) as socket,
            ):
                await socket.receive_bytes()
                yield

        async with comes_from("127.0.0.2"), comes_from("127.0.0.3"):
            for forged in ({}, {"Forwarded": "for=203.0.113.9"}, {"X-Forwarded-For": "203.0.113.9"}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    async with comes_from("127.0.0.2", **forged):
                        pass
                assert refused.value.status == 429


@pytest.mark.parametrize("heartbeat", [1, 3600])
async def test_quiet_connections_stay_while_the_heartbeat_is_faster_than_the_proxys_patience(
    heartbeat: int, tmp_path: Path, authority: Authority
) -> None:
    """With the documented patience cut short; the control is a tracker that pings too rarely."""
    port, tracker = free_ports(2)
    said = put_in(documented("nginx"), {"wss://horde.example.org": f"wss://{HOST}:{port}", ":7345": f":{tracker}"})
    site = proxies.nginx_site(port, tracker, authority, {"proxy_read_timeout 120s": "proxy_read_timeout 3s"})
    rules = f"{as_rules(said)}server.heartbeat = {heartbeat}\ntimes.hello = 120\n"
    connector = aiohttp.TCPConnector(ssl=authority.believed())
    async with (
        Horde.open(tmp_path, rules),
        proxies.nginx(tmp_path, site, port),
        aiohttp.ClientSession(connector=connector) as http,
        http.ws_connect(f"wss://{HOST}:{port}/peer", autoping=False) as socket,
    ):
        await socket.receive_bytes()
        heard = 0
        async with asyncio.timeout(60):
            # So many take longer than the proxy waits.
            while heard < 6 and (message := await socket.receive()).type is aiohttp.WSMsgType.PING:
                heard += 1
                await socket.pong(message.data)
    assert heard == (6 if heartbeat == 1 else 0)


# Addresses and ports


@asynccontextmanager
async def shows_clients(settings: Settings) -> AsyncIterator[int]:
    """What decides in the tracker who a client is, with these settings, and nothing else; the port."""

    async def tell(request: web.BaseRequest) -> web.StreamResponse:
        client = client_of(request)
        return web.Response(text=f"{client.address} {client.port}")

    certificate = read_certificate(settings.certificate, settings.private_key) if settings.certificate else None
    behind, rounds, places = web.Server(tell), Rounds(), Places(lambda: 99)
    porch = Porch(
        places,
        settings.trust,
        lambda: certificate.context if certificate else None,
        settings.proxy_protocol,
        lambda arrival: Door(behind, places, settings.trust, rounds, arrival),
    )
    async with porch.listen("127.0.0.1", settings.port) as port:
        yield port
    await behind.shutdown(1)


def a_way_in(kind: str, folder: Path, authority: Authority) -> tuple[Settings, AbstractAsyncContextManager[None], int]:
    """The documented settings, the documented proxy, and the port of the proxy."""
    port, tracker = free_ports(2)
    said = put_in(documented(kind), {":7345": f":{tracker}"})
    if kind == "stream":
        live = "/etc/letsencrypt/live/horde.example.org"
        files = {f"{live}/fullchain.pem": authority.certificate, f"{live}/privkey.pem": authority.private_key}
        said = put_in(said, {found: str(file) for found, file in files.items()})
        before = proxies.nginx(folder, proxies.nginx_stream(port, tracker), port)
        return parse(said, folder / "horde.toml").settings, before, port
    return parse(said, folder / "horde.toml").settings, BEFORE[kind](folder, port, tracker, authority), port


async def ask(
    address: str, host: str, port: int, tls: ssl.SSLContext | None, forged: list[tuple[str, str]]
) -> tuple[str, str]:
    """Who the server says has asked, and who has: both as address and port."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, local_addr=(address, 0))
        head = [("Host", HOST), ("Connection", "close"), *forged]
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in head), "", ""]
        writer.write("\r\n".join(lines).encode())
        own = f"{address} {writer.get_extra_info('sockname')[1]}"
        answer = (await reader.read()).decode()
        writer.close()
    assert " 200 " in answer.partition("\r\n")[0], answer
    return answer.rpartition("\r\n")[2], own


FORGED: list[list[tuple[str, str]]] = [
    [],
    [("X-Forwarded-For", "203.0.113.9")],
    [("X-Forwarded-For", "203.0.113.9:80, 127.0.0.1")],
    [("Forwarded", 'for="203.0.113.9:80"')],
    [("Forwarded", "for=203.0.113.9, for=127.0.0.1")],
    [("Forwarded", "for=203.0.113.9"), ("Forwarded", "for=127.0.0.1")],
    [("Forwarded", 'for="203.0.113.9')],
    [("forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "203.0.113.9")],
    [("X-Forwarded-Port", "80"), ("X-Forwarded-Host", "203.0.113.9")],
    [("Connection", "Forwarded"), ("Forwarded", "for=203.0.113.9")],
]


@pytest.mark.parametrize("kind", [*KINDS, "stream"])
@pytest.mark.ci_slow
async def test_address_and_port_are_seen_through_the_proxy_and_cannot_be_forged(
    kind: str, tmp_path: Path, authority: Authority
) -> None:
    settings, before, port = a_way_in(kind, tmp_path, authority)
    ways = [("127.0.0.2", "127.0.0.1")]
    if kind == "nginx" and proxies.has_ipv6():
        ways.append(("::1", "::1"))
    async with shows_clients(settings), before:
        for address, host in ways:
            for forged in FORGED:
                said, own = await ask(address, host, port, authority.believed(), forged)
                assert said == own, forged


@pytest.mark.parametrize("kind", [*KINDS, "stream"])
async def test_who_comes_around_the_proxy_speaks_for_nobody(kind: str, tmp_path: Path, authority: Authority) -> None:
    settings, _, _ = a_way_in(kind, tmp_path, authority)
    tls = authority.believed() if settings.private_key else None
    async with shows_clients(settings) as port:
        for forged in FORGED:
            said, own = await ask("127.0.0.2", "127.0.0.1", port, tls, forged)
            assert said == own, forged


# TLS of its own


@pytest.mark.slow
async def test_a_self_signed_horde_is_joined_by_its_link_alone(tmp_path: Path) -> None:
    async with self_signed(tmp_path) as horde:
        assert horde.link is not None
        assert horde.link.url.startswith("wss://127.0.0.1:")
        assert "&cert=" in str(horde.link)
        assert (horde.tracker_folder / "tls.key").stat().st_mode & 0o777 == 0o600
        await horde.worker("ann", "--dry-run", "image")
        await asks_and_gets(horde, "bob", tmp_path / "picture.png")
        check = await horde.run("tracker", "check", str(horde.tracker_folder))
        assert "self-signed: the link carries its digest" in check
        assert (await horde.audit())["ok"]


async def test_no_other_certificate_is_taken_and_nothing_is_said_to_who_shows_one(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody in between ends TLS with another certificate, a good one of an authority that is believed, and passes
    all on to the tracker."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    port = free_ports(1)[0]
    async with self_signed(tmp_path) as horde:
        link = horde.link
        assert link is not None
        tracker = int(link.url.rpartition(":")[2])
        onward = {"proxy_pass http://": "proxy_ssl_protocols TLSv1.3; proxy_pass https://"}
        site = proxies.nginx_site(port, tracker, authority, onward)
        async with proxies.nginx(tmp_path / "between", site, port):
            between = replace(link, url=f"wss://{HOST}:{port}")
            for wrong, words in (
                (between, "shows another certificate than the link names"),
                # A link with the right `id` and the other's certificate: nobody vouches for it.
                (replace(between, certificate=authority.digest), "does not vouch for the certificate in the link"),
            ):
                home = ("--home", str(tmp_path / "victim"))
                said = await refused(horde, "join", str(wrong), *home, code=Exit.UNREACHABLE)
                assert words in said
            # The control: it does pass everything on, to those who take any certificate that an authority vouches for.
            await horde.run(
                "peer", "join", str(replace(between, certificate=b"")), "--home", str(tmp_path / "careless")
            )


async def refused(horde: Horde, *arguments: str, code: int) -> str:
    """What a peer's command says on standard error as it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "peer",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return err.decode()


async def test_a_certificate_is_read_again_and_one_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with self_signed(tmp_path) as horde:
        link, tracker = horde.link, horde.tracker
        assert link is not None
        assert tracker is not None

        async def reload(certificate: bytes, private_key: bytes) -> None:
            (horde.tracker_folder / "tls.crt").write_bytes(certificate)
            (horde.tracker_folder / "tls.key").write_bytes(private_key)
            tracker.process.send_signal(HANG_UP)

        first, second = make_self_signed("127.0.0.1"), make_self_signed("127.0.0.1")
        await reload(first[0], second[1])
        await until(lambda: "the certificate stays as it is" in tracker.text(), "nothing was said")
        async with RawPeer.open(link) as peer:
            await reload(*second)
            said = await tracker.line(lambda line: line.get("event") == "certificate")
            await peer.register()  # who is here stays
        renewed = parse_link(said["link"])
        assert renewed.certificate not in (b"", link.certificate)
        async with RawPeer.open(renewed) as peer:
            await peer.register()
        with pytest.raises(aiohttp.ServerFingerprintMismatch):
            async with RawPeer.open(link):
                pass
        home = ("--home", str(tmp_path / "bob"))
        await horde.run("peer", "join", str(renewed), *home)
        assert "ask the operator for the link again" in await refused(
            horde, "join", str(link), *home, code=Exit.UNREACHABLE
        )


async def test_a_horde_behind_a_proxy_that_passes_tls_through(tmp_path: Path) -> None:
    """The documented stream before a tracker whose certificate is self-signed: the PROXY protocol, then TLS."""
    port, tracker = free_ports(2)
    said = put_in(documented("stream"), {":7345": f":{tracker}", "wss://horde.example.org": f"wss://{HOST}:{port}"})
    kept = "".join(line for line in said.splitlines(keepends=True) if not re.match("certificate|private_key", line))
    horde = Horde(tmp_path)
    await horde.run("tracker", "init", str(horde.tracker_folder), "--self-signed", "--name", "a test")
    horde.add_rules(as_rules(kept))
    try:
        async with proxies.nginx(tmp_path, proxies.nginx_stream(port, tracker), port):
            await horde.serve()
            assert horde.link is not None
            assert horde.link.url == f"wss://{HOST}:{port}"
            await horde.worker("ann", "--dry-run", "image")
            await asks_and_gets(horde, "bob", tmp_path / "picture.png")
    finally:
        await asyncio.gather(*(process.end() for process in horde.processes))
