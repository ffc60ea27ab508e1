"""Nothing of a network stays behind, however the program ends that made it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.nat.namespaces import NO_NAMESPACES, CommandFailed, Namespace, can_make_namespaces
from tests.support.horde import until
from tests.support.marked import marked, new_mark

pytestmark = [pytest.mark.skipif(not can_make_namespaces(), reason=NO_NAMESPACES), pytest.mark.nat]

#: Makes a network with a slow link, starts a program at a home, says so, and waits.
_PROGRAM = """
import subprocess, sys
from pathlib import Path
from tests.nat.kinds import Kind
from tests.nat.net import Network

with Network.open(Path(sys.argv[1]), {"home": Kind.PORT_RESTRICTED}, {"home": 5}) as network:
    subprocess.Popen((*network.prefix("home"), "sleep", "1000"))
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["SIGINT", "SIGKILL"])
async def test_no_process_is_left_in_a_network_whose_maker_is_gone(tmp_path: Path, end: str) -> None:
    mark = new_mark()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **mark},
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"ready\n"
    # The program, the forwarder of the slow link, and what was started at the home.
    assert len(marked(mark)) == 3

    program.send_signal(getattr(signal, end))
    await program.wait()

    await until(lambda: not marked(mark), "something is left")


def test_a_command_that_fails_says_where_and_why() -> None:
    alone = Namespace("alone")
    try:
        with pytest.raises(CommandFailed, match=r"alone: ip -batch - ended with 1: .*nowhere"):
            alone.ip("link set nowhere up")
        with pytest.raises(ZeroDivisionError):
            alone.call(lambda: 1 // 0)
    finally:
        alone.close()


def test_a_namespace_is_apart_and_the_caller_stays_where_it_was() -> None:
    here = _ours()
    alone = Namespace("alone")
    try:
        assert alone.call(_ours) != here
        assert _ours() == here
        assert "lo" in alone.run("ip", "-brief", "link")
        assert "veth" not in alone.run("ip", "-brief", "link")
    finally:
        alone.close()


def _ours() -> Path:
    """The namespace of this thread."""
    return Path("/proc/thread-self/ns/net").readlink()
