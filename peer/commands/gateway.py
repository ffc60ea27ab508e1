"""`potluck gateway`: the doors for programs that speak OpenAI's, AI Horde's or AUTOMATIC1111's API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Failure, Settings, plain, print_json, translated, with_home
from peer.commands.exits import Exit
from peer.commands.worker import listening, log_to_stderr, loop_factory, when_told_to_end

if TYPE_CHECKING:
    from peer.gateway.access import Access
    from peer.gateway.serve import Listening
    from peer.gateway.tls import Tls
    from peer.home import Home
    from protocol.links import Link

#: Beside the tracker's. None of the programs whose clients come here listens there by itself, so that one of them can
#: run on the same machine.
DEFAULT_LISTEN = "127.0.0.1:7346"

DOORS = (("OpenAI", "/v1"), ("AI Horde", "/api/v2"), ("AUTOMATIC1111", "/sdapi/v1"))


@dataclass(frozen=True)
class Options:
    """What was said of the gateway on its command line."""

    hordes: tuple[str, ...]
    listen: str
    origins: tuple[str, ...]
    host_names: tuple[str, ...]
    anonymous: bool
    new_key: bool
    tls: bool
    certificate: Path | None
    private_key: Path | None
    without_tls: bool


_file = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Open a horde to programs made for OpenAI, AI Horde or AUTOMATIC1111.")
@click.option("--horde", "hordes", multiple=True, metavar="NAME", help="Which to ask, the first one first; else all.")
@click.option(
    "--listen", default=DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT", help="Where programs connect."
)
@click.option("--origin", "origins", multiple=True, metavar="URL", help="A web page that may ask: scheme://host:port.")
@click.option("--host-name", "host_names", multiple=True, metavar="NAME", help="How else this machine is called.")
@click.option("--no-anonymous", is_flag=True, help="Serve nobody without the key, on AI Horde's door neither.")
@click.option("--new-key", is_flag=True, help="Make another access key; the present one opens nothing any more.")
@click.option("--tls", is_flag=True, help="Serve https, with a certificate made here.")
@click.option("--certificate", type=_file, help="Serve https with this certificate (PEM).")
@click.option("--private-key", type=_file, help="The key of --certificate (PEM).")
@click.option("--without-tls", is_flag=True, help="Listen beyond this machine without https, readable to the network.")
@click.option("--insecure", is_flag=True, help="Talk to a tracker on the internet without TLS.")
@click.option("--relays-only", is_flag=True, help="Reach workers through relays, to hide this machine's address.")
@with_home
def gateway(settings: Settings, no_anonymous: bool, insecure: bool, relays_only: bool, **said: Any) -> None:
    """Open the hordes you joined to programs that exist: chat front-ends, picture editors, SDKs.

    \b
    What to type into them:
      OpenAI         base URL http://127.0.0.1:7346/v1, API key: the access key
      AI Horde       URL http://127.0.0.1:7346/api/, API key: the access key, or 0000000000
      AUTOMATIC1111  http://127.0.0.1:7346, any user name, password: the access key

    The access key is made at the first start, shown once, and kept in the peer's folder (gateway/access-key). Who has
    it asks as your account. With 0000000000 a program asks as nobody, which costs you nothing.

    Models of all hordes are listed. A name goes to the first horde that serves it; HORDE/MODEL means that horde's.
    """
    options = Options(anonymous=not no_anonymous, **said)
    settings = replace(settings, insecure=insecure, relays_only=relays_only)
    with translated(settings):
        _check(options)
        log_to_stderr()
        _serve(settings, options)


def _check(options: Options) -> None:
    """Refuse words that do not go together."""
    from peer.gateway.access import is_loopback

    if bool(options.certificate) != bool(options.private_key):
        raise click.UsageError("--certificate and --private-key belong together: give both")
    if options.tls and options.certificate:
        raise click.UsageError("--tls makes a certificate: leave it out, or --certificate and --private-key")
    host, _ = listening(options.listen)
    if not is_loopback(host) and not (options.tls or options.certificate or options.without_tls):
        raise click.UsageError(
            f"--listen {options.listen} is open to other machines, and whoever is in between could read keys, prompts"
            " and pictures: add --tls, or --without-tls if something else encrypts"
        )


def _serve(settings: Settings, options: Options) -> None:
    """Run until Ctrl+C or SIGTERM."""
    import asyncio

    from peer.gateway import key
    from peer.gateway.hordes import Hordes
    from peer.gateway.serve import Listening, make_app, serving

    home = settings.home
    links = _links(home, options.hordes)
    access, tls = _access(options), _tls(home, options)
    host, port = listening(options.listen)
    # Last, for a key that is made is shown once.
    secret, made = key.load_or_create(home.folder, new=options.new_key)
    shown = False
    access = replace(access, key=secret)
    where = Listening(host, port, tls.context if tls is not None else None)

    async def work() -> None:
        nonlocal shown
        hordes = Hordes(links, home, insecure=settings.insecure, relays_only=settings.relays_only)
        end = asyncio.Event()
        when_told_to_end(asyncio.get_running_loop(), end.set, stdin_too=False)
        async with serving(make_app(hordes, access), where) as url:
            _tell(settings, _Serving(url, key.key_file(home.folder), secret if made else "", tuple(links), tls))
            shown = True
            await end.wait()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner, _listening_errors(where):
            runner.run(work())
    finally:
        if made and not shown:
            # Nobody has seen it: the next start makes another, and shows that.
            key.key_file(home.folder).unlink(missing_ok=True)


def _links(home: Home, names: tuple[str, ...]) -> dict[str, Link]:
    """The hordes to ask by name, in their order; all that were joined if none is named, the default one first."""
    hordes = home.hordes()
    chosen = names or [hordes.default, *hordes.links]
    return {name: home.link(name) for name in dict.fromkeys(chosen) if name or not hordes.links}


def _access(options: Options) -> Access:
    """Who may ask, but for the key."""
    from peer.gateway.access import Access, host_name, origin_of

    host, _ = listening(options.listen)
    try:
        origins = frozenset(origin_of(origin) for origin in options.origins)
    except ValueError as error:
        raise click.UsageError(f"--origin: {error}") from error
    names = {host_name(f"[{name}]" if ":" in name else name): name for name in (*options.host_names, host) if name}
    if "" in names:
        raise click.UsageError(f"--host-name {names['']}: wanted a name or an address, without port")
    return Access("", frozenset(names), origins, options.anonymous, any_local=_is_wildcard(host))


def _is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")  # noqa: S104 (it is asked whether, not done)


def _tls(home: Home, options: Options) -> Tls | None:
    import datetime as dt

    from peer.gateway.tls import from_files, load_or_create

    if options.certificate and options.private_key:
        return from_files(options.certificate, options.private_key)
    if not options.tls:
        return None
    host, _ = listening(options.listen)
    names = [*options.host_names, *([] if _is_wildcard(host) else [host])]
    return load_or_create(home.folder, names, dt.datetime.now(dt.UTC))


@contextmanager
def _listening_errors(where: Listening) -> Iterator[None]:
    """Say what to do where the address cannot be listened on."""
    try:
        yield
    except OSError as error:
        text = (
            f"cannot listen at {where.host}:{where.port} ({error.strerror or error}): does another gateway run there?"
            " Choose another address with --listen"
        )
        raise Failure("listen", text, Exit.USAGE) from error


@dataclass(frozen=True)
class _Serving:
    """What is said at the start. key: empty unless it was made just now."""

    url: str
    key_file: Path
    key: str
    hordes: tuple[str, ...]
    tls: Tls | None


def _tell(settings: Settings, serving: _Serving) -> None:
    if settings.json:
        tls = serving.tls
        certificate = {"certificate": str(tls.certificate), "certificate_sha256": tls.sha256} if tls else {}
        key = {"key": serving.key} if serving.key else {}
        print_json(
            {
                "event": "serving",
                "url": serving.url,
                "hordes": list(serving.hordes),
                "key_file": str(serving.key_file),
                **key,
                **certificate,
            }
        )
        return
    click.echo(plain(f"serving {', '.join(serving.hordes)} at {serving.url}"))
    for name, path in DOORS:
        click.echo(f"  {name:<14} {serving.url}{path}")
    if serving.key:
        click.echo(f"access key, shown this once: {serving.key}")
    click.echo(f"the access key is kept in {serving.key_file}")
    if serving.tls is not None:
        click.echo(f"certificate {serving.tls.certificate}, SHA-256 {serving.tls.sha256}")
