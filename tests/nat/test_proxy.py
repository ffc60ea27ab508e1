"""Behind a reverse proxy as docs/ configure it the tracker still sees from where peers come: holes are punched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.nat.hordes import StreetHorde
from tests.nat.kinds import Kind
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import TRACKER, TRACKER_NAME, Network
from tests.nat.paths import PUNCHED, RELAYED
from tests.nat.probes import answer
from tests.support.horde import PATIENCE_S
from tests.support.proxies import Authority, needs_proxies, nginx_site, put_in
from tracker.tls import make_self_signed

pytestmark = [
    pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES),
    needs_proxies,
    pytest.mark.nat,
]

WORKER, REQUESTER = "worker", "requester"
PORT, BEHIND = 443, 7345


@asynccontextmanager
async def nginx_at_the_tracker(network: Network, folder: Path, shown: Authority, told: str) -> AsyncIterator[None]:
    """The documented nginx in front of the tracker, for the whole street. told: the header by which it says who is
    coming, as documented or not."""
    site = nginx_site(PORT, BEHIND, shown)
    site = put_in(
        site, {f"listen 127.0.0.1:{PORT} ssl": f"listen {PORT} ssl", f"listen [::1]:{PORT}": f"listen [::]:{PORT}"}
    )
    site = put_in(site, {"$remote_addr:$remote_port": told})
    file, log = folder / "nginx.conf", folder / "nginx.log"
    file.write_text(f"user root;\ndaemon off;\npid nginx.pid;\nerror_log {log} warn;\n{site}", "utf-8")
    process = await asyncio.create_subprocess_exec(
        *network.prefix(TRACKER),
        *("nginx", "-p", str(folder), "-e", str(log), "-c", str(file)),
        stdin=asyncio.subprocess.DEVNULL,
        env=dict(os.environ),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await answer(network[TRACKER], 4, ("127.0.0.1", PORT)) != "connected":
                assert process.returncode is None, log.read_text("utf-8", "replace")[-4000:]
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def self_signed(folder: Path) -> Authority:
    """A certificate that nobody vouches for, so that the tracker's link names it."""
    certificate, private_key = make_self_signed(TRACKER_NAME)
    files = folder / "shown.crt", folder / "shown.key"
    for file, content in zip(files, (certificate, private_key), strict=True):
        file.write_bytes(content)
    return Authority(files[0], *files, b"")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param("$remote_addr:$remote_port", PUNCHED, marks=pytest.mark.ci_slow, id="as documented"),
        pytest.param("$remote_addr", RELAYED, marks=pytest.mark.slow, id="without the port"),
    ],
)
async def test_a_hole_is_punched_through_nginx_if_it_says_the_port_and_else_there_are_relays(
    tmp_path: Path, told: str, expected: str
) -> None:
    shown = self_signed(tmp_path)
    rules = f"""
server.listen = "127.0.0.1:{BEHIND}"
server.url = "wss://{TRACKER_NAME}:{PORT}"
server.certificate = "{shown.certificate}"
server.trusted_proxies = ["127.0.0.1"]
server.forwarded_header = "Forwarded"
"""
    homes = {WORKER: Kind.PORT_RESTRICTED, REQUESTER: Kind.PORT_RESTRICTED}
    with Network.open(tmp_path, homes) as network:
        async with (
            nginx_at_the_tracker(network, tmp_path, shown, told),
            StreetHorde.open(network, tmp_path, rules) as horde,
        ):
            await horde.worker(WORKER, "--dry-run", "image:model=painter,step_ms=50")
            asked = await (await horde.picture(REQUESTER, "painter")).finished()

    assert asked.paths[-1] == expected
