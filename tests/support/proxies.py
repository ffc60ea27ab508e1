"""Real reverse proxies, with the configurations of docs/reverse-proxies.md as they stand there.

Only names, ports, paths and, where a test needs it, a time-out are put in; where one of them is not found in the
document any more, the test fails.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import ipaddress
import os
import re
import shlex
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.horde import PATIENCE_S, Horde, until

PAGE = Path(__file__).parents[2] / "docs" / "reverse-proxies.md"
NO_PROXIES = "no nginx with streams or no Caddy here"
#: Where Debian puts it.
STREAMS = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
HOST = "localhost"

needs_proxies = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("caddy") and STREAMS.exists()), reason=NO_PROXIES
)


def blocks(language: str) -> list[str]:
    """The blocks of the document in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def put_in(text: str, changes: Mapping[str, str]) -> str:
    """The text with names, ports and paths of a test; each has to be there."""
    for found, wanted in changes.items():
        assert found in text, f"docs/reverse-proxies.md shows no {found!r} in:\n{text}"
        text = text.replace(found, wanted)
    return text


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens at the moment, on neither loopback address."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [found.getsockname()[1] for found in sockets]


@dataclass(frozen=True)
class Authority:
    """One that vouches for names, as those of the web do. file: its own certificate, for who shall believe it."""

    file: Path
    certificate: Path
    private_key: Path
    digest: bytes

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """An authority, and a certificate of it for this machine."""
        folder.mkdir(parents=True, exist_ok=True)
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _sign("an authority of tests", root_key, "an authority of tests", root_key, is_root=True)
        leaf = _sign(HOST, key, "an authority of tests", root_key, is_root=False)
        made = cls(
            folder / "authority.pem",
            folder / "server.pem",
            folder / "server.key",
            hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).digest(),
        )
        made.file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        made.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        made.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        made.private_key.chmod(0o600)
        return made

    def believed(self) -> ssl.SSLContext:
        """TLS of somebody who believes this authority and no other."""
        return ssl.create_default_context(cafile=str(self.file))


def _sign(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, is_root: bool
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(HOST), *(x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1"))]
    subject, by_whom = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by_whom)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .sign(by, hashes.SHA256())
    )


def nginx_site(port: int, tracker: int, shown: Authority, changes: Mapping[str, str] | None = None) -> str:
    """The whole of nginx's configuration around the documented file."""
    [site] = [block for block in blocks("nginx") if "server_name" in block]
    live = "/etc/letsencrypt/live/horde.example.org"
    site = put_in(
        site,
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "listen [::]:443 ssl": f"listen [::1]:{port} ssl",
            "horde.example.org;": f"{HOST};",
            f"{live}/fullchain.pem": str(shown.certificate),
            f"{live}/privkey.pem": str(shown.private_key),
            "127.0.0.1:7345": f"127.0.0.1:{tracker}",
            **(changes or {}),
        },
    )
    if not has_ipv6():
        site = re.sub(r".*listen \[::1\].*\n", "", site)
    temporary = "\n".join(f"{name}_temp_path tmp;" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\n{site}\n}}\n"


def nginx_stream(port: int, tracker: int) -> str:
    """The whole of nginx's configuration around the documented block for bytes."""
    [block] = [block for block in blocks("nginx") if "stream {" in block]
    block = put_in(block, {"listen 443;": f"listen 127.0.0.1:{port};", "127.0.0.1:7345": f"127.0.0.1:{tracker}"})
    return f"load_module {STREAMS};\nevents {{}}\n{block}\n"


def caddyfile(port: int, tracker: int, shown: Authority) -> str:
    """The documented file behind what keeps Caddy to this test's port."""
    [site] = blocks("caddyfile")
    site = put_in(
        site,
        {
            "horde.example.org": f"https://{HOST}:{port}",
            "/etc/ssl/certs/horde.pem": str(shown.certificate),
            "/etc/ssl/private/horde.key": str(shown.private_key),
            "127.0.0.1:7345": f"127.0.0.1:{tracker}",
        },
    )
    return "{\nadmin off\nauto_https disable_redirects\ndefault_bind 127.0.0.1\n}\n" + site


def has_ipv6() -> bool:
    """Whether this machine has a loopback address of that kind."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@asynccontextmanager
async def nginx(folder: Path, configuration: str, port: int) -> AsyncIterator[None]:
    """nginx with this configuration, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;\n" if hasattr(os, "getuid") and os.getuid() == 0 else ""
    log = folder / "nginx.log"
    file = folder / "nginx.conf"
    file.write_text(f"{user}daemon off;\npid nginx.pid;\nerror_log {log} warn;\n{configuration}", "utf-8")
    arguments = ("nginx", "-p", str(folder), "-e", str(log), "-c", str(file))
    async with _running(arguments, log, port, {}):
        yield


@asynccontextmanager
async def caddy(folder: Path, configuration: str, port: int) -> AsyncIterator[None]:
    """Caddy with this configuration, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "Caddyfile"
    file.write_text(configuration, "utf-8")
    homes = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    arguments = ("caddy", "run", "--config", str(file), "--adapter", "caddyfile")
    async with _running(arguments, folder / "caddy.log", port, homes):
        yield


@asynccontextmanager
async def self_signed(folder: Path) -> AsyncIterator[Horde]:
    """A horde that speaks TLS with a certificate that the documented command makes."""
    port = free_ports(1)[0]
    horde = Horde(folder)
    [command] = re.findall(r"(?m)^potluck-tracker (init .*)$", PAGE.read_text("utf-8"))
    places = {"~/horde": str(horde.tracker_folder), "0.0.0.0:7345": f"127.0.0.1:{port}"}
    await horde.run("tracker", *shlex.split(put_in(command, {**places, "203.0.113.7:7345": f"127.0.0.1:{port}"})))
    try:
        await horde.serve()
        yield horde
    finally:
        await asyncio.gather(*(process.end() for process in horde.processes))


@asynccontextmanager
async def _running(
    arguments: tuple[str, ...], log: Path, port: int, environment: dict[str, str]
) -> AsyncIterator[None]:
    """A process that listens at the port, until the block ends."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:

        def listens() -> bool:
            assert process.returncode is None, f"{arguments[0]} ended:\n{log.read_text('utf-8', 'replace')[-4000:]}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await until(listens, f"{arguments[0]} does not listen at {port}")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
