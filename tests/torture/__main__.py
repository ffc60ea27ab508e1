"""`python -m tests.torture`: kill after kill from a seed that can be given again, and the table of where."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.torture.campaign import ROUND, Campaign, Failed, Kill, plan
from tests.torture.places import VICTIMS, table

FOLDER = Path("build")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry the plan out; 0 if everything held after every kill."""
    options = _parser().parse_args(arguments)
    cells = [cell for cell in ROUND if cell.victim in (options.victim or VICTIMS) and options.place in cell.place]
    if not cells:
        print(f"no place is called {options.place!r}: without --place and --victim a run lists all of them")
        return 2
    kills = plan(options.seed, options.first + options.kills, cells)[options.first :]
    print(f"seed {options.seed}: {len(kills)} kills, from number {options.first} on", flush=True)
    FOLDER.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=FOLDER)).resolve()
    # Connections that break are what this is about: nobody needs to read each on the terminal.
    logging.basicConfig(filename=folder / "log", level=logging.WARNING)
    campaign = Campaign(folder, lambda line: print(line, flush=True))
    code = _run(campaign, kills, options)
    print(table(campaign.kills, dict.fromkeys(cells)))
    print("how requests ended: " + ", ".join(f"{how} {count}" for how, count in sorted(campaign.outcomes.items())))
    if code == 0:
        shutil.rmtree(folder)
        print("everything held")
    else:
        print(f"logs and databases are in {folder}")
    return code


def _run(campaign: Campaign, kills: Sequence[Kill], options: argparse.Namespace) -> int:
    try:
        asyncio.run(campaign.run(kills, options.hordes))
    except KeyboardInterrupt:
        print(f"\ninterrupted; seed {options.seed}")
        return INTERRUPTED
    except Failed as error:
        more = "".join(f" --victim {victim}" for victim in options.victim)
        more += f" --place '{options.place}'" if options.place else ""
        again = f"--seed {options.seed} --first {error.first} --kills {error.last - error.first + 1} --hordes 1{more}"
        print(f'\nFAILED with seed {options.seed}\n{error}\nto see it again: make torture ARGS="{again}"')
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Kill a horde's processes.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="drawn without it")
    parser.add_argument("--kills", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="leave out the kills before this number")
    parser.add_argument("--hordes", type=int, default=2, help="hordes beside each other (%(default)s)")
    parser.add_argument("--victim", action="append", choices=VICTIMS, default=[], help="only this one; may be repeated")
    parser.add_argument("--place", default="", help="only places whose name contains this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
