"""A receipt that comes twice is checked once, and only if both are the same to the byte."""

from dataclasses import replace

import pytest

from protocol.envelope import Envelope
from protocol.errors import BadSignature
from protocol.keys import SIGNATURE_BYTES
from tests.support.builders import a_key, a_lease, a_receipt, signed
from tests.support.peers import delivered
from tracker import checked
from tracker.checked import Checked


@pytest.fixture
def receipt():
    return signed(a_receipt(a_lease()), a_key(1))


@pytest.fixture
def asked(monkeypatch):
    """The envelopes whose signature was looked at."""
    seen = []
    whole = Envelope.verify

    def look(envelope):
        seen.append(envelope)
        whole(envelope)

    monkeypatch.setattr(Envelope, "verify", look)
    return seen


def test_the_same_bytes_are_checked_once_for_each_pair(receipt, asked):
    known = Checked()
    for _ in range(4):
        known.verify(receipt)
    assert len(asked) == 2
    assert len(known) == 0


def test_a_wrong_signature_is_refused_as_often_as_it_comes(receipt):
    known = Checked()
    known.verify(receipt)
    stray = bytes(SIGNATURE_BYTES)
    wrong = replace(receipt, signature=stray, raw=receipt.raw.replace(receipt.signature, stray))
    for _ in range(2):
        with pytest.raises(BadSignature):
            known.verify(wrong)


def test_what_is_remembered_has_an_end(monkeypatch, asked):
    monkeypatch.setattr(checked, "KEPT", 2)
    known = Checked()
    receipts = [signed(a_receipt(a_lease()), a_key(number)) for number in range(4)]
    for one in receipts:
        known.verify(one)
    assert len(known) == 2
    known.verify(receipts[0])
    assert asked == [*receipts, receipts[0]]


async def test_a_receipt_and_the_acknowledgement_that_contains_it_cost_one_check(desk, asked):
    """Also of a worker that connected when no receipt had ever come."""
    _, requester, _, receipt = await delivered(desk)
    await requester.acknowledge(receipt)
    await desk.quiet()
    assert [envelope.raw for envelope in asked].count(receipt.raw) == 1
    assert len(desk.coordinator.checked) == 0
