"""A worker whose router lets ports be mapped (UPnP, by Debian's miniupnpd) is reached directly, and tidies up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.nat.hordes import StreetHorde
from tests.nat.kinds import INSIDE, OUTSIDE, Kind
from tests.nat.namespaces import NO_NAMESPACES, can_make_namespaces
from tests.nat.net import Network
from tests.support.horde import until

MINIUPNPD = shutil.which("miniupnpd", path="/usr/sbin:/usr/bin")
NO_MINIUPNPD = "no miniupnpd here, which plays a router that lets ports be mapped"

pytestmark = [
    pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES),
    pytest.mark.skipif(MINIUPNPD is None, reason=NO_MINIUPNPD),
    pytest.mark.nat,
    pytest.mark.ci_slow,
]

WORKER, REQUESTER = "w", "r"
ROUTER = "192.168.1.1"

#: The chains that the daemon fills, and what every home router does with connections that it has mapped.
RULES = """
table inet filter {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
insert rule inet home through ct status dnat accept
"""


@contextmanager
def mapping_router(network: Network, place: str, folder: Path) -> Iterator[None]:
    """The router of this home answers UPnP."""
    router = network[place].router
    assert router is not None
    assert MINIUPNPD is not None
    router.nft(RULES)
    config = folder / "miniupnpd.conf"
    config.write_text(
        f"ext_ifname={OUTSIDE}\nlistening_ip={INSIDE}\nport=5000\nenable_upnp=yes\nenable_natpmp=no\nsecure_mode=yes\n"
        "force_igd_desc_v1=no\nuuid=ede4a230-6f30-42a3-a101-8c026fedf4d7\nallow 1024-65535 0.0.0.0/0 1024-65535\n",
        "ascii",
    )
    pid = folder / "miniupnpd.pid"
    with (folder / "miniupnpd.out").open("wb") as output:
        command = (*router.prefix(), MINIUPNPD, "-d", "-f", str(config), "-P", str(pid))
        daemon = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
        finally:
            daemon.terminate()
            daemon.wait(10)


async def test_a_mapped_worker_is_reached_directly_and_gives_the_port_back(tmp_path: Path) -> None:
    homes = {WORKER: Kind.PORT_RESTRICTED, REQUESTER: Kind.SYMMETRIC}
    with Network.open(tmp_path, homes) as network, mapping_router(network, WORKER, tmp_path):
        router = network[WORKER].router
        assert router is not None
        async with StreetHorde.open(network, tmp_path) as horde:
            worker = await horde.worker(WORKER, "--dry-run", "image:model=mapped")
            mapped = await worker.line(lambda line: line.get("event") == "mapped")
            assert network[WORKER].outer4 in mapped["text"], (tmp_path / "miniupnpd.out").read_text("utf-8", "replace")
            reached = await worker.line(lambda line: line.get("event") == "reached")
            assert reached["text"].startswith(f"{network[WORKER].outer4}:")

            asked = await (await horde.picture(REQUESTER, "mapped")).finished()
            assert asked.paths == ["direct"]

            assert "dnat" in router.run("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")
            await worker.stop()
            await until(
                lambda: "dnat" not in router.run("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"),
                "the port stays open at the router",
            )
