"""`potluck delegate`: other keys that act for one's account, within bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Settings, plain, print_json, run, show_kudos, with_horde

if TYPE_CHECKING:
    from peer.acts import Delegate
    from peer.client import Client
    from protocol.messages import Account

FILE = click.Path(path_type=Path, dir_okay=False)
MOST_KUDOS = 10**12
#: A size that it may be bound to; no larger number travels exactly everywhere.
SIZE = click.IntRange(1, 2**53 - 1)
#: What a duration may end with, in seconds.
UNITS = {"m": 60, "h": 3600, "d": 86_400}


@click.group(short_help="Let other keys act for your account.")
def delegate() -> None:
    """Let other keys act for your account, within bounds: one for each machine, or one to hand out."""


@delegate.command(short_help="Let a key work or ask for your account.")
@click.argument("key", required=False)
@click.option("--key-file", type=FILE, help="Make a fresh key in this file, to hand out, in place of naming KEY.")
@click.option("--work", is_flag=True, help="It may serve; your account earns.")
@click.option("--ask", is_flag=True, help="It may ask; your account pays.")
@click.option("--expires", metavar="30m|12h|90d|DATE", help="When it ends by itself; a date is YYYY-MM-DD (UTC).")
@click.option("--kudos", type=float, help="What may be spent through it in all; beyond it, it asks for free.")
@click.option("--max-pixels", type=SIZE, default=None, help="The largest picture that it may ask for.")
@click.option("--max-steps", type=SIZE, default=None, help="The most denoising steps.")
@click.option("--max-tokens", type=SIZE, default=None, help="The longest text that it may ask for.")
@click.option("--max-context", type=SIZE, default=None, help="The most room for prompt and answer.")
@click.option("--model", "models", multiple=True, help="A model that it may ask for; may be repeated. Else any.")
@click.option("--label", default="", help="For you, up to 60 characters.")
@with_horde
def make(settings: Settings, key: str | None, key_file: Path | None, **bounds: Any) -> None:
    """Let KEY act for your account (`potluck account` on that machine shows it), or a fresh key in --key-file.

    The other machine then says `potluck delegate use`, with the file if there is one.
    """
    if (key is None) == (key_file is None):
        raise click.UsageError("name either KEY or --key-file, and not both")
    if not (bounds["work"] or bounds["ask"]):
        raise click.UsageError("say what the key may do: --work, --ask or both")

    async def work() -> None:
        from peer.acts import delegate
        from peer.keyring import kept_key
        from protocol.keys import SigningKey, parse_key

        terms = _terms(**bounds)
        async with settings.client() as horde:
            if key_file is not None:
                fresh = SigningKey.generate()
                with kept_key(key_file, fresh):
                    made = await delegate(horde, fresh.public, **terms)
            else:
                made = await delegate(horde, parse_key(key or ""), **terms)
        if settings.json:
            print_json(delegate_fields(made))
        else:
            click.echo("\n".join(delegate_lines(made)))
            if key_file is not None:
                click.echo(f"{key_file} holds the key; on the other machine: potluck delegate use {key_file.name}")

    run(settings, work)


def _terms(*, expires: str | None, kudos: float | None, models: tuple[str, ...], **rest: Any) -> dict[str, Any]:
    """The bounds as a delegation says them."""
    found: dict[str, Any] = {name: value for name, value in rest.items() if value is not None}
    if any(not 1 <= len(model) <= 120 for model in models):
        raise click.UsageError("--model: wanted 1 to 120 characters in each")
    found["models"] = models
    if kudos is not None:
        if not 0 <= kudos <= MOST_KUDOS:
            raise click.UsageError(f"--kudos {kudos:g}: wanted 0 to {MOST_KUDOS:,}")
        found["kudos"] = round(kudos * 1000)
    if expires:
        found["expires"] = int(expires_at(expires, datetime.now(UTC)).timestamp() * 1000)
    if len(found["label"]) > 60:
        raise click.UsageError(f"--label of {len(found['label'])} characters: wanted at most 60")
    return found


def expires_at(text: str, now: datetime) -> datetime:
    """The moment that `--expires` means: so long from now, or the end of a day (UTC)."""
    number, unit = text[:-1], text[-1:]
    try:
        if unit in UNITS and number.isdigit():
            return now + timedelta(seconds=int(number) * UNITS[unit])
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(f"--expires {text}: wanted 30m, 12h, 90d or a date as 2030-12-31") from error


@delegate.command("list", short_help="Show the delegations that stand.")
@with_horde
def list_(settings: Settings) -> None:
    """Show the delegations of your account that stand, with what was spent through each."""

    async def work() -> None:
        from peer.acts import delegates

        async with settings.client() as horde:
            found = await delegates(horde)
        if settings.json:
            print_json({"delegations": [delegate_fields(one) for one in found]})
        else:
            click.echo("\n\n".join("\n".join(delegate_lines(one)) for one in found) or "no key acts for this account")

    run(settings, work)


@delegate.command(short_help="Take a delegation back, at once.")
@click.argument("which")
@with_horde
def revoke(settings: Settings, which: str) -> None:
    """Take back the delegation WHICH: the first letters of its digest, its key, or its label."""

    async def work() -> None:
        from peer.acts import revoke

        async with settings.client() as horde:
            found = await revoke(horde, which)
        if settings.json:
            print_json({"revoked": found.digest.hex()})
        else:
            click.echo(f"revoked: {_name(found)}; that key acts for this account no more")

    run(settings, work)


@delegate.command(short_help="Act for somebody's account on this machine.")
@click.argument("file", type=FILE, required=False)
@click.option("--force", is_flag=True, help="Set the key that is there aside.")
@with_horde
def use(settings: Settings, file: Path | None, force: bool) -> None:
    """Act for somebody's account from this peer's folder: by the key in FILE, or by this peer's own key if its owner
    was told that. A worker here then never opens an account of its own."""

    async def work() -> None:
        from peer.client import Client
        from peer.keyring import adopt, mark_delegate, read_key

        home, link = settings.home, settings.link()
        key = read_key(file) if file is not None else home.key()
        async with Client(link, key, insecure=settings.insecure) as horde:
            found = await horde.account()
            await _check_delegate(horde, found)
        if file is not None:
            with home.worker_lock():
                adopt(home, key, force=force)
        mark_delegate(home, link.root, found.number)
        if settings.json:
            print_json({"account": found.number, "name": found.name})
        else:
            click.echo(f"this peer acts for account {plain(found.name)}#{found.number}")

    run(settings, work)


async def _check_delegate(horde: Client, found: Account) -> None:
    """Refuse a key that acts for nobody, and one whose account it is: of that alone delegations can be asked for."""
    from peer.commands.common import Failure
    from peer.commands.exits import Exit
    from peer.events import Refused
    from protocol.errors import NotAllowed

    if not found.number:
        text = "this key acts for no account here: ask its owner for a delegation, or whether it was taken back"
        raise Failure("not_registered", text, Exit.REFUSED)
    try:
        await horde.delegations()
    except Refused as refused:
        if refused.code == NotAllowed.code:
            return
        raise
    text = f"account {found.number} is this key's own: there is nothing to agree to"
    raise Failure("usage", text, Exit.USAGE)


def delegate_fields(one: Delegate) -> dict[str, Any]:
    """A delegation for scripts, amounts in thousandths."""
    from protocol.keys import show_key

    terms = one.terms
    return {
        "delegation": one.digest.hex(),
        "key": show_key(terms.delegate),
        "label": terms.label,
        "work": terms.work,
        "ask": terms.ask,
        "expires": terms.expires or None,
        "kudos": terms.kudos,
        "used": one.used,
        "max_pixels": terms.max_pixels,
        "max_steps": terms.max_steps,
        "max_tokens": terms.max_tokens,
        "max_context": terms.max_context,
        "models": list(terms.models),
    }


def delegate_lines(one: Delegate) -> list[str]:
    """A delegation for people."""
    from protocol.keys import show_key

    terms = one.terms
    roles = [role for role, allowed in (("work", terms.work), ("ask", terms.ask)) if allowed]
    bounds = {
        "pixels": terms.max_pixels,
        "steps": terms.max_steps,
        "tokens": terms.max_tokens,
        "context": terms.max_context,
    }
    sizes = [f"at most {most} {what}" for what, most in bounds.items() if most]
    most = "" if terms.kudos is None else f" of {show_kudos(terms.kudos)}"
    lines = [
        _name(one),
        f"  key       {show_key(terms.delegate)}",
        f"  may       {' and '.join(roles) or 'nothing'}{'; ' if sizes else ''}{', '.join(sizes)}",
        f"  used      {show_kudos(one.used)}{most} kudos",
    ]
    if terms.models:
        lines.append(f"  models    {plain(', '.join(terms.models))}")
    if terms.expires:
        lines.append(f"  until     {_date(terms.expires)}")
    return lines


def _name(one: Delegate) -> str:
    label = f" ({plain(one.terms.label)})" if one.terms.label else ""
    return f"{one.digest.hex()[:12]}{label}"


def _date(milliseconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
