"""The commands `potluck-tracker admin ...`: acts of operators and moderators at a horde that is being served."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracker.commands.guard import guarded

if TYPE_CHECKING:
    from tracker.commands.place import Place

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
Command = Callable[..., None]
#: Acts of which the rules may ask for a second signature.
TWO_MAY_SIGN = ("ban", "return")


def _now() -> int:
    return time.time_ns() // 1_000_000


@click.group(short_help="Acts of operators and moderators, and the log of them.")
def admin() -> None:
    """Acts of operators and moderators at a horde that is being served, from anywhere.

    HORDE is its folder on this machine, whose serving key signs, or its link, with --key: the file of a key that the
    rules name (table roles). Acts are signed, and everybody can read them: `admin log`.
    """


def _with_place(command: Command) -> Command:
    """Add what says where the tracker is and who speaks; the command gets it as `place`."""

    @click.argument("horde", metavar="HORDE")
    @click.option(
        "--key", type=FILE, help="The file of the key that signs; with a folder, the serving key if not given."
    )
    @click.option(
        "--url", metavar="URL", help="Where the tracker of a folder is met; made from horde.toml if not given."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(command)
    def wrapped(horde: str, key: Path | None, url: str | None, **rest: Any) -> None:
        from tracker.commands.place import find_place

        with guarded():
            command(place=find_place(horde, key, url), **rest)

    return wrapped


def _as_act(command: Command) -> Command:
    """Add what every act says; the command returns the fields of its own."""

    @click.option("--rule", required=True, help="Which rule of the horde; everybody can read it.")
    @click.option("--reason", required=True, help="Why, in up to 300 characters; everybody can read it.")
    @functools.wraps(command)
    def wrapped(place: Place, rule: str, reason: str, as_json: bool, **fields: Any) -> None:
        from tracker.commands.admin_act import act

        kind = click.get_current_context().command.name or ""
        done = act(place, kind, rule, reason, _now(), **fields)
        if as_json:
            about = {"about": done.act.about.hex()} if done.act.about else {}
            click.echo(json.dumps({"act": kind, "document": done.digest.hex(), **about}))
            return
        spoken_of = f" ({done.about.act}: {done.about.reason})" if done.about else ""
        name = done.digest.hex()[:12]
        click.echo(f"{kind} was taken as act {name}{spoken_of}")
        if kind in TWO_MAY_SIGN or (kind == "lift" and done.about and done.about.act in TWO_MAY_SIGN):
            click.echo(
                f"`admin log` shows whether it waits for a second moderator, who types `admin agree HORDE {name}`"
            )

    return wrapped


ACCOUNT = click.argument("account", metavar="ACCOUNT")
ACT = click.argument("about", metavar="ACT")
UNTIL = "Until when: a span such as 12h or 7d, or a day (UTC)."


@admin.command("warn")
@_with_place
@ACCOUNT
@_as_act
def _warn() -> None:
    """Warn ACCOUNT: its number, or its name with the number."""


@admin.command("limit")
@_with_place
@ACCOUNT
@click.option("--open-jobs", type=click.IntRange(1), required=True, help="So many of its jobs at once.")
@click.option("--until", help=f"{UNTIL} For good if not given.")
@_as_act
def _limit() -> None:
    """Bound the jobs of ACCOUNT that are under way at once."""


@admin.command("suspend")
@_with_place
@ACCOUNT
@click.option("--until", required=True, help=UNTIL)
@_as_act
def _suspend() -> None:
    """Let ACCOUNT neither ask nor serve for a while; what waits of it ends."""


@admin.command("ban")
@_with_place
@ACCOUNT
@_as_act
def _ban() -> None:
    """Propose that ACCOUNT neither asks nor serves any more; a second moderator has to `agree`."""


@admin.command("pause")
@_with_place
@ACCOUNT
@click.option("--worker", metavar="KEY", help="This worker only; all of the account if not given.")
@click.option("--until", help=f"{UNTIL} Until it is lifted if not given.")
@_as_act
def _pause() -> None:
    """Give workers of ACCOUNT no work."""


@admin.command("trust")
@_with_place
@ACCOUNT
@_as_act
def _trust() -> None:
    """Trust ACCOUNT from now on: what was withheld of its pay becomes its own."""


@admin.command("return")
@_with_place
@ACCOUNT
@click.argument("amount", metavar="KUDOS")
@click.option("--to", metavar="ACCOUNT", help="Who gets them; burned if not given.")
@_as_act
def _return() -> None:
    """Take KUDOS from ACCOUNT that it got by fraud, and give them back. Many need a second moderator to `agree`."""


@admin.command("block")
@_with_place
@click.argument("block", metavar="NETWORK")
@click.option("--until", required=True, help=UNTIL)
@_as_act
def _block() -> None:
    """From NETWORK (as 203.0.113.0/24) nobody asks without an account or registers."""


@admin.command("lift")
@_with_place
@ACT
@_as_act
def _lift() -> None:
    """End ACT: its number in the log, or the first letters of its digest. Answers what was appealed against it.

    Of a ban that is in force it proposes that: a second moderator has to `agree` to it."""


@admin.command("agree")
@_with_place
@ACT
@_as_act
def _agree() -> None:
    """Sign ACT as the second moderator, by which it comes into force."""


@admin.command("uphold")
@_with_place
@ACT
@_as_act
def _uphold() -> None:
    """Answer the appeals against ACT: they were read, and it stands."""


@admin.command("answer")
@_with_place
@click.argument("proposal", metavar="PROPOSAL")
@click.option("--rules", type=click.IntRange(1), metavar="N", help="The version of the rules that applies it.")
@click.option("--text", required=True, help="Why it was applied, or why not; everybody can read it.")
def _answer(place: Place, proposal: str, rules: int | None, text: str, as_json: bool) -> None:
    """Say what became of PROPOSAL (its number) after its vote: with --rules applied, else not. For operators."""
    from tracker.commands.admin_act import answer

    said = answer(place, proposal, rules or 0, text, _now())
    if as_json:
        click.echo(json.dumps({"proposal": said.proposal.hex(), "rules": said.rules or None}))
    else:
        click.echo(f"answered: {'applied' if said.rules else 'not applied'}")


@admin.command("appeals")
@_with_place
def _appeals(place: Place, as_json: bool) -> None:
    """Show the appeals that nobody has answered; for keys with a role only."""
    from tracker.commands.admin_act import appeals

    found = appeals(place)
    if as_json:
        click.echo(json.dumps({"appeals": found}, ensure_ascii=False))
        return
    for one in found:
        click.echo(
            f"account {one['account']} against act {one['number']} ({one['act']}, {one['state']}; {one['rule']}:"
            f" {one['reason']}):\n    {_plain(str(one['text']))}"
        )
    if not found:
        click.echo("no appeal waits for an answer")


@admin.command("log")
@_with_place
@click.option("--before", type=click.IntRange(1), metavar="N", help="Only acts with a number below N.")
def _log(place: Place, before: int | None, as_json: bool) -> None:
    """Show the public log, the newest acts first."""
    from tracker.commands.admin_act import log

    found = log(place, before)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for one in found["acts"]:
        whom = f" account {one['account']}" if one.get("account") else f" {one.get('block', '')}".rstrip()
        rule = f"{one['rule']}: " if one.get("rule") else ""
        click.echo(f"{one['number']:>6} {one['act']:<8}{whom} ({one['state']}): {rule}{_plain(one['reason'])}")


def _plain(text: str) -> str:
    """Without control characters, by which somebody else's words could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@admin.command("award")
@click.argument("horde", metavar="HORDE")
@ACCOUNT
@click.argument("kudos", metavar="KUDOS")
@click.option("--reason", required=True, help="Why, in up to 200 characters; everybody can read it.")
@click.option("--key", type=FILE, help="The file of an operator's key; with a folder, the serving key if not given.")
@click.option("--url", metavar="URL", help="Where the tracker is met; made from horde.toml if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def _award(horde: str, account: str, kudos: str, reason: str, key: Path | None, url: str | None, as_json: bool) -> None:
    """Make KUDOS for ACCOUNT: its number, or its name with the number. A signed act that everybody can read.

    It is signed by an operator's key, or the serving key in the folder, and entered by the tracker that serves.
    """
    from tracker.commands.admin_award import award
    from tracker.ledger import show_kudos

    with guarded():
        done = award(horde, account, kudos, reason, key=key, url=url, now=_now())
    if as_json:
        fields = {"account": done.account, "amount": done.amount, "reason": done.reason}
        click.echo(json.dumps({**fields, "document": done.document.hex()}))
    else:
        click.echo(f"{show_kudos(done.amount)} kudos were made for account {done.account}: {done.reason}")


@admin.command("invite")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many codes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def _invite(folder: Path, count: int, as_json: bool) -> None:
    """Make codes by which one key each becomes an account, where accounts.registration is 'invited'.

    They are shown this once: the horde keeps their hashes only. Works while the tracker serves.
    """
    from tracker.commands.admin_invite import invite

    with guarded():
        codes = invite(folder, count, _now())
    if as_json:
        click.echo(json.dumps({"codes": codes}))
    else:
        click.echo("\n".join(codes))
