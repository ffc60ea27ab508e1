"""`potluck-tracker archive`: the evidence of jobs that ended long ago moves into a file, while the tracker serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tracker.archives.file import FOLDER
from tracker.archives.making import Made, NotSound, Place, make
from tracker.commands.exits import BAD_COMMAND_LINE, BAD_HORDE, FOUND_FAULTS, CommandError
from tracker.commands.folder import read_config, read_serving_key, take_archives, take_lock
from tracker.ledger import DAY_MS, day_of
from tracker.store.base import StoreError

#: Peers keep for a week what they were paid, and may show it again; what the tracker is asked about them stays longer.
LEAST_DAYS = 14
DAYS = 90


def archive(
    folder: Path, *, before: datetime | None, keep_days: int, now: int, told: Callable[[int, int], None]
) -> Made:
    """Move what ended before that day, or more than so many days ago; raises `CommandError`."""
    config = read_config(folder)
    settings = config.settings
    least = max(LEAST_DAYS, config.rules.ledger.delay_days)
    moment = (day_of(now) - keep_days) * DAY_MS
    if before is not None:
        moment = int(before.replace(tzinfo=UTC).timestamp()) * 1000
    if day_of(now) - day_of(moment) < least:
        text = (
            f"so much is kept at hand that peers and readers may still ask for: wanted a day at least {least} days ago"
        )
        raise CommandError(f"{datetime.fromtimestamp(moment / 1000, UTC):%Y-%m-%d}: {text}", BAD_COMMAND_LINE)
    if not settings.database.exists():
        raise CommandError(f"{settings.database}: there is no database: nothing to move", BAD_HORDE)
    place = Place(settings.database, settings.database.parent / FOLDER, read_serving_key(settings))
    with closing(take_archives(folder)):
        try:
            return make(place, moment, alone=lambda: _alone(folder), told=told)
        except StoreError as error:
            raise CommandError(str(error), BAD_HORDE) from error
        except NotSound as error:
            text = f"{error}\nnothing was moved: look into it by potluck-tracker audit {folder}"
            raise CommandError(f"{settings.database}: {text}", FOUND_FAULTS) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}", BAD_HORDE) from error


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no tracker runs; then none begins to until the block ends."""
    try:
        lock = take_lock(folder)
    except CommandError:
        yield False
    else:
        with closing(lock):
            yield True


def words(made: Made) -> Iterator[str]:
    """What `archive` says to people."""
    for name in made.finished:
        yield f"{name} was half moved, and is whole now."
    if made.name:
        yield (
            f"{made.name} holds the evidence of {made.requests:,} requests up to entry {made.end:,} of the ledger,"
            f" {made.documents:,} documents in {made.bytes:,} bytes."
        )
        yield "Copy it and its .json to where your backups are: an audit from the beginning needs every archive."
    elif not made.finished:
        yield "Nothing is old enough to move."
    if made.stayed:
        yield f"{made.stayed} requests stay: something was said of them meanwhile."
    if made.name or made.finished:
        yield f"The database had {made.before:,} bytes, and has {made.after:,}, of which {made.free:,} are free."
    if made.free > made.after // 4:
        yield "Free room is used again. To give it back to the disk, stop the tracker and archive once more."
