"""What the tracker's signatures and checks alone allow on one core."""

from __future__ import annotations

import time
from collections.abc import Mapping

from protocol.envelope import parse
from protocol.keys import SigningKey

REPEAT = 400

#: How many of those that peers hear the tracker signs: it passes some on, and hands one document to two of them.
SIGNED = {"heard peer_record": 0.0, "heard rules": 0.0, "heard lease": 0.5, "heard settlement": 0.5}


def seconds_per_job(per_job: Mapping[str, float], samples: Mapping[str, str]) -> float:
    """CPU time for a job's signatures and checks. per_job: messages of each kind, sent to and heard from the tracker;
    samples: one of each, in hexadecimal. A receipt in an acknowledgement is not checked a second time."""
    key = SigningKey.generate()
    total = 0.0
    for kind, number in per_job.items():
        envelope = parse(bytes.fromhex(samples[kind]))
        began = time.process_time()
        if kind.startswith("sent "):
            for _ in range(REPEAT):
                envelope.verify()
        else:
            for _ in range(REPEAT):
                key.sign(envelope.signed_bytes)
        total += number * SIGNED.get(kind, 1.0) * (time.process_time() - began) / REPEAT
    return total


def operations(per_job: Mapping[str, float]) -> tuple[float, float]:
    """Checks and signatures of the tracker for a job."""
    checks = sum(number for kind, number in per_job.items() if kind.startswith("sent "))
    made = sum(number * SIGNED.get(kind, 1.0) for kind, number in per_job.items() if kind.startswith("heard "))
    return checks, made
