"""`potluck account`: what one has in a horde, how one is seen there, one's key, and the end of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.common import Settings, plain, print_json, run, show_kudos, translated, with_home, with_horde

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from peer.client import Client
    from peer.home import Home
    from protocol.keys import SigningKey
    from protocol.links import Link
    from protocol.messages import Account

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(invoke_without_command=True, short_help="Show or make your account, and change what it is.")
@click.option("--register", is_flag=True, help="Make this peer's key an account of the horde.")
@click.option("--invite", default="", metavar="CODE", help="The operator's code, where the horde wants one.")
@click.option("--known-to", metavar="KEY", help="Show by what the worker of this key knows the account.")
@with_horde
@click.pass_context
def account(context: click.Context, settings: Settings, register: bool, invite: str, known_to: str | None) -> None:
    """Show this peer's account: what it earned by serving, and what it can spend.

    With a command, change how it is shown, or its key.
    """
    if context.invoked_subcommand is not None:
        _check_no_options(context)
        return
    if len(invite) > 60:  # longer ones do not travel
        raise click.UsageError(f"--invite of {len(invite)} characters: wanted the operator's code, as it was given")

    async def work() -> None:
        from protocol.keys import parse_key

        worker = parse_key(known_to) if known_to else None
        async with settings.client() as horde:
            if register or invite:
                await horde.register(invite)
            found = await horde.account(worker)
            tell(settings, horde, found)

    run(settings, work)


def _check_no_options(context: click.Context) -> None:
    """An option in front of a command would be for nothing, and nobody would notice."""
    for name in context.params:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"options go behind `{context.invoked_subcommand}`, not in front of it")


def tell(settings: Settings, horde: Client, found: Account) -> None:
    """The account, for people or scripts."""
    from protocol.keys import show_key

    key = show_key(horde.key.public)
    if settings.json:
        print_json({"key": key, **account_fields(found)})
    else:
        click.echo("\n".join(account_lines(found, key)))


def account_fields(account: Account) -> dict[str, Any]:
    """The account for scripts, amounts in thousandths."""
    from peer.limits import show_pseudonym

    return {
        "account": account.number,
        "name": account.name,
        "public": account.public,
        "service": account.service,
        "balance": account.balance,
        "held": account.held,
        "earned": account.earned,
        "spent": account.spent,
        "taken_free": account.taken_free,
        "jobs_done": account.jobs_done,
        "jobs_received": account.jobs_received,
        "withheld": account.withheld,
        "missing": {"jobs": account.trust_jobs, "days": account.trust_days, "faults": account.faults},
        "notice": account.notice,
        "pseudonym": show_pseudonym(account.pseudonym),
    }


def account_lines(account: Account, key: str) -> list[str]:
    """The account for people."""
    from protocol.documents import shown_name

    lines = [f"key         {key}"]
    if account.number:
        seen = "; a service" if account.service else "; its page is public" if account.public else ""
        lines += [
            f"account     {plain(shown_name(account.name, account.number)) if account.name else account.number}{seen}",
            f"balance     {show_kudos(account.balance)} kudos, and {show_kudos(account.held)} held for jobs under way",
            f"earned      {show_kudos(account.earned)} by {account.jobs_done} jobs done",
            f"spent       {show_kudos(account.spent)} on {account.jobs_received} jobs received",
            f"taken       {show_kudos(account.taken_free)} for free",
        ]
        lines += withheld_lines(account)
    else:
        lines.append("account     none: this key is anonymous here; `potluck account --register` makes it one")
    if account.pseudonym:
        from peer.limits import show_pseudonym

        lines.append(f"known as    {show_pseudonym(account.pseudonym)} to that worker, and to no other")
    return [*lines, plain(account.notice)] if account.notice else lines


def withheld_lines(account: Account) -> list[str]:
    """What of the earnings waits, why, and what is missing; nothing where nothing does."""
    needed = [
        f"{account.trust_jobs} more {'job' if account.trust_jobs == 1 else 'jobs'}" if account.trust_jobs else "",
        f"{account.trust_days} more {'day' if account.trust_days == 1 else 'days'}" if account.trust_days else "",
    ]
    missing = " and ".join(part for part in needed if part)
    if not account.withheld:
        return []
    lines = [
        f"withheld    {show_kudos(account.withheld)} of what it earned: it is yours, and you can spend it once this"
    ]
    lines.append(f"            horde trusts your workers{': ' + missing + ' without a fault' if missing else ''}")
    if account.faults:
        count = "1 result was" if account.faults == 1 else f"{account.faults} results were"
        lines.append(f"            {count} denied lately, which has to pass first")
    return lines


# How it is shown


def _show(settings: Settings, **changes: Any) -> None:
    async def work() -> None:
        from peer.acts import show

        async with settings.client() as horde:
            tell(settings, horde, await show(horde, **changes))

    run(settings, work)


@account.command(short_help="Choose the name by which people see the account.")
@click.argument("name")
@with_horde
def name(settings: Settings, name: str) -> None:
    """Be shown as NAME, up to 30 characters; the account's number stands behind it, as in NAME#123."""
    _show(settings, name=name)


@account.command(short_help="Let anybody read the account's page.")
@with_horde
def public(settings: Settings) -> None:
    """Let anybody read the account's page: /accounts/NUMBER at the tracker."""
    _show(settings, public=True)


@account.command(short_help="Let nobody else read the account's page.")
@with_horde
def private(settings: Settings) -> None:
    """Let nobody else read the account's page. What a service gives and takes stays public."""
    _show(settings, public=False)


@account.command(short_help="Ask for users of your own, in the open.")
@click.argument("state", type=click.Choice(["on", "off"]))
@with_horde
def service(settings: Settings, state: str) -> None:
    """Make the account one that asks for users of its own (`--user`), or not any more.

    What a service gives and takes is public, and workers are told its name.
    """
    _show(settings, service=state == "on")


# Its key


@account.command(short_help="Copy this peer's key to a file.")
@click.argument("file", type=FILE)
@with_home
def export(settings: Settings, file: Path) -> None:
    """Copy this peer's key to FILE, which nobody else may read. Whoever has it has the account."""
    with translated(settings):
        from peer.keyring import write_key
        from protocol.keys import show_key

        key = settings.home.key()
        write_key(file, key)
    _say(settings, {"path": str(file), "key": show_key(key.public)}, f"{file}: the key of this peer; keep it secret")


@account.command("import", short_help="Take this peer's key from a file.")
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Set the key that is there aside.")
@with_home
def import_(settings: Settings, file: Path, force: bool) -> None:
    """Make the key in FILE this peer's own, and with it the account."""
    with translated(settings):
        from peer.keyring import adopt, read_key
        from protocol.keys import show_key

        with settings.home.worker_lock():
            key = read_key(file)
            aside = adopt(settings.home, key, force=force)
    shown = show_key(key.public)
    fields = {"key": shown, "aside": str(aside) if aside else None}
    _say(settings, fields, f"this peer is {shown} now" + (f"; its former key is in {aside}" if aside else ""))


@account.command(short_help="Give the account a new key.")
@click.option(
    "--skip",
    multiple=True,
    metavar="NAME",
    help="A horde that is gone, or where you act for somebody; may be repeated.",
)
@click.option("--insecure", is_flag=True, help="Talk to a tracker on the internet without TLS.")
@with_home
def rotate(settings: Settings, skip: tuple[str, ...], insecure: bool) -> None:
    """Give the account a new key, in every horde that this peer joined. The former key has no account from then on.

    If one of them does not answer, nothing is lost: run it again.
    """

    async def work() -> None:
        from peer.acts import rotate_if_needed
        from peer.keyring import next_key, take_next
        from protocol.keys import show_key

        home = settings.home
        links = _links(home, skip)
        with home.worker_lock():
            former = home.key()
            _check_own(home, links)
            _check_settled(home, links)
            following = next_key(home)
            done = {}
            for horde, link in links.items():
                done[horde] = await rotate_if_needed(_opener(link, insecure=insecure), former, following)
                if not settings.json and done[horde]:
                    click.echo(f"{plain(horde)}: account {done[horde]} has the new key")
            aside = take_next(home)
        fields = {"key": show_key(following.public), "accounts": done, "aside": str(aside)}
        _say(settings, fields, f"this peer is {show_key(following.public)} now; its former key is in {aside}")

    run(settings, work)


def _links(home: Home, skip: tuple[str, ...]) -> dict[str, Link]:
    names = home.hordes().links
    for unknown in set(skip) - set(names):
        raise click.UsageError(f"--skip {unknown}: no such horde was joined")
    return {name: home.link(name) for name in names if name not in skip}


def _check_own(home: Home, links: dict[str, Link]) -> None:
    """An account of somebody else has no part in it."""
    from peer.home import HomeError
    from peer.keyring import delegated_account

    for name, link in links.items():
        if account := delegated_account(home, link.root):
            raise HomeError(
                f"in {plain(name)} this key acts for account {account} by a delegation, which a new key does not have:"
                f" leave it out with --skip {plain(name)}, and ask its owner to delegate to the new key"
            )


def _check_settled(home: Home, links: dict[str, Link]) -> None:
    """What the former key has to answer for, the new one could not."""
    from peer.evidence import Evidence
    from peer.home import HomeError

    evidence = Evidence(home.results_folder)
    if any(evidence.unsettled(link.root) for link in links.values()):
        raise HomeError(
            "a result is not settled yet, and the former key has to see to that: run `potluck account` once"
        )


def _opener(link: Link, *, insecure: bool) -> Any:
    def open_as(key: SigningKey) -> AbstractAsyncContextManager[Client]:
        from peer.client import Client

        return Client(link, key, insecure=insecure)

    return open_as


@account.command(short_help="Make a key, kept apart, for when this one is lost.")
@click.argument("file", type=FILE)
@with_horde
def recovery(settings: Settings, file: Path) -> None:
    """Make a recovery key in FILE and tell the horde: keep FILE apart from this machine.

    With it `potluck account recover FILE` gives the account another key. A recovery key of before counts no more.
    """

    async def work() -> None:
        from peer.acts import name_recovery, own_account
        from peer.keyring import kept_key
        from protocol.keys import SigningKey, show_key

        async with settings.client() as horde:
            found = await own_account(horde)
            key = SigningKey.generate()
            with kept_key(file, key):
                await name_recovery(horde, key.public)
            own = show_key(horde.key.public)
        fields = {"path": str(file), "recovery": show_key(key.public), "account": found.number, "key": own}
        _say(
            settings,
            fields,
            f"{file} can give account {found.number} another key: keep it apart, and with it this line:\n"
            f"potluck account recover {file.name} --former {own}",
        )

    run(settings, work)


@account.command(short_help="Get an account back with its recovery key.")
@click.argument("file", type=FILE)
@click.option(
    "--former", required=True, metavar="KEY", help="A key that the account had, as `potluck account` shows it."
)
@with_horde
def recover(settings: Settings, file: Path, former: str) -> None:
    """Give the account this peer's key, by the recovery key in FILE. The key that it had has no account from then
    on."""

    async def work() -> None:
        from peer.acts import rotate
        from peer.keyring import read_key
        from protocol.keys import parse_key

        signer, lost = read_key(file), parse_key(former)
        async with settings.client() as horde:
            tell(settings, horde, await rotate(horde, lost, signer))

    run(settings, work)


# Its end


@account.command(short_help="End the account; what it has is burned.")
@click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
@with_horde
def leave(settings: Settings, yes: bool) -> None:
    """End the account in this horde: its key, its delegations, its name; what it has left is burned.

    The key stays, and can be made a new account.
    """
    if not yes:
        if settings.json:
            raise click.UsageError("nothing is asked with --json: say --yes if that is meant")
        _confirm_end(settings)

    async def work() -> None:
        from peer.acts import leave as end

        async with settings.client() as horde:
            found = await end(horde)
        burned = found.balance + found.withheld
        text = f"account {found.number} has left; {show_kudos(burned)} kudos were burned"
        _say(settings, {"left": found.number, "burned": burned}, text)

    run(settings, work)


def _confirm_end(settings: Settings) -> None:
    """Ask whether this account is meant, and what it has; no connection waits for the answer meanwhile."""
    asked: list[str] = []

    async def look() -> None:
        from peer.acts import own_account
        from protocol.documents import shown_name

        async with settings.client() as horde:
            found = await own_account(horde)
        name = plain(shown_name(found.name, found.number) if found.name else str(found.number))
        has = show_kudos(found.balance + found.withheld)
        asked.append(f"End account {name} for good, and burn the {has} kudos that it has?")

    run(settings, look)
    click.confirm(asked[0], abort=True, err=True)


def _say(settings: Settings, fields: dict[str, Any], text: str) -> None:
    if settings.json:
        print_json(fields)
    else:
        click.echo(text)
