"""What a worker tells of its leases, put into messages that stay below their size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protocol.envelope import Envelope
from protocol.messages import Progress, Report

#: Keeps a report below its size limit, whatever the texts.
_REPORT_ENTRIES = 50
_REPORT_TEXT = 200


def batches(items: Sequence[Progress | Envelope]) -> Iterator[Report | Envelope]:
    """Reports of what lies side by side; receipts between them."""
    gathered: list[Progress] = []
    for item in items:
        if isinstance(item, Progress) and len(gathered) < _REPORT_ENTRIES:
            gathered.append(_short(item))
            continue
        if gathered:
            yield Report(leases=tuple(gathered))
            gathered = []
        if isinstance(item, Progress):
            gathered.append(_short(item))
        else:
            yield item
    if gathered:
        yield Report(leases=tuple(gathered))


def _short(progress: Progress) -> Progress:
    if len(progress.text) <= _REPORT_TEXT:
        return progress
    return Progress(
        job=progress.job,
        attempt=progress.attempt,
        state=progress.state,
        reason=progress.reason,
        text=progress.text[:_REPORT_TEXT],
    )
