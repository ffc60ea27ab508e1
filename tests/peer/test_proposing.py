"""Proposals as a peer reads them: nobody but who may has signed what is shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from peer.audit.horde import Horde
from peer.proposing import read
from protocol.errors import Refusal
from protocol.keys import SigningKey
from tests.support.builders import ROOT, SERVING, a_delegation, a_key, a_proposal, an_answer, an_outcome, signed

HORDE = Horde.of(a_delegation().raw, ROOT.public)
PROPOSAL = signed(a_proposal())


def a_row(outcome: SigningKey = SERVING, root: SigningKey = ROOT, about: bytes = PROPOSAL.digest) -> dict[str, Any]:
    """A proposal as the tracker publishes it, its outcome signed by this key."""

    def of(raw: bytes) -> dict[str, str]:
        return {"document": base64.b64encode(raw).decode()}

    return {
        **of(PROPOSAL.raw),
        "number": 1,
        "account": 100,
        "was": "20",
        "until": 5,
        "voices": 7,
        "outcome": of(signed(an_outcome(proposal=about), outcome, root).raw),
        "answer": of(signed(an_answer(proposal=PROPOSAL.digest), SERVING).raw),
    }


def test_a_proposal_is_read_with_its_outcome_and_answer() -> None:
    found = read(a_row(), HORDE)
    assert found.state.startswith("accepted: 3 yes, 1 no of 7 voices; not applied")


@pytest.mark.parametrize("wrong", [{"outcome": a_key(9)}, {"root": a_key(9)}, {"about": bytes(32)}])
def test_an_outcome_by_another_key_of_another_horde_or_proposal_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises((Refusal, ValueError)):
        read(a_row(**wrong), HORDE)
