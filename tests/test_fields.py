"""No door for money, in the commands and the settings of both programs: each stands in fields.txt with its reason."""

import importlib
from collections.abc import Iterator

import click
import msgspec

from tests.support.fields import FILE, fields_of_commands, reasons
from tracker.config import ServerSection

PROGRAMS = {"potluck": "peer.__main__", "potluck-tracker": "tracker.__main__"}


def programs() -> Iterator[tuple[str, click.Command]]:
    for name, module in PROGRAMS.items():
        groups = [value for value in vars(importlib.import_module(module)).values() if isinstance(value, click.Group)]
        [group] = [one for one in groups if not any(one in other.commands.values() for other in groups)]
        yield name, group


def written(*beginnings: str) -> set[str]:
    return {path for path in reasons(FILE.read_text("utf-8")) if path.startswith(beginnings)}


def test_no_door_for_money_every_option_of_every_command_has_its_reason_and_no_other_stands_there() -> None:
    assert fields_of_commands(dict(programs())) ^ written("potluck") == set()


def test_no_door_for_money_every_setting_of_the_trackers_process_has_its_reason() -> None:
    assert {f"setting.server.{name}" for name in msgspec.structs.asdict(ServerSection())} == written("setting.")


def test_a_new_command_and_a_new_option_fail_until_they_are_added() -> None:
    @click.group()
    def potluck() -> None:
        """Something."""

    @potluck.command()
    @click.argument("card")
    @click.option("--amount", hidden=True)
    def buy(card: str, amount: str) -> None:
        """Something else."""

    assert fields_of_commands({"potluck": potluck}) - written("potluck") == {"potluck buy card", "potluck buy --amount"}
