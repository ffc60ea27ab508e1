"""Rules under which a test can reckon what everybody gets, with as few people as it needs."""

from __future__ import annotations

from protocol.rules import EarningSection, MintSection, Rules
from tests.support.builders import but

#: The same as lines for `Horde.add_rules`.
PLAIN_RULES = """
mint.owners = 1
mint.owner_share = 1000
mint.asker_share = 1000
earning.withheld = 0
"""


def plain(rules: Rules | None = None) -> Rules:
    """The same rules, but one owner is enough for kudos to be minted, gets all of the mint, and none of its pay is
    withheld; what differs from the defaults stays as it is."""
    rules = rules or Rules()
    mint, usual = rules.mint, MintSection()
    simple = {"owners": 1, "owner_share": 1_000, "asker_share": 1_000}
    changed = {name: value for name, value in simple.items() if getattr(mint, name) == getattr(usual, name)}
    usual_pay = rules.earning.withheld == EarningSection().withheld
    earning = but(rules.earning, withheld=0) if usual_pay else rules.earning
    return but(rules, mint=but(mint, **changed), earning=earning)
