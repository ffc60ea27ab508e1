"""A horde's rules: everything that an operator may want different, typed, with defaults that run.

All kudos are integers in thousandths, all times whole seconds, unless a name says otherwise. The tracker reads them
from `horde.toml` and publishes each version signed; peers need them to compute prices and to know what is allowed.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.licences import OPEN

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Permille = Annotated[int, Meta(ge=0, le=1000)]
Point = tuple[Natural, Natural]
LicenceId = Annotated[str, Meta(min_length=1, max_length=100)]
Treatment = Literal["allow", "label", "replace", "refuse"]
KeyText = Annotated[str, Meta(min_length=52, max_length=52)]
Points = Annotated[tuple[Point, ...], Meta(min_length=1, max_length=32)]
#: SHA-256, written in hex.
HexDigest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the rules file."""


class HordeSection(Section, frozen=True, kw_only=True):
    """Who this horde is.

    name: shown to people, up to 60 characters.
    """

    name: Annotated[str, Meta(min_length=1, max_length=60)] = "a Potluck horde"


class PricesSection(Section, frozen=True, kw_only=True):
    """What a worker earns for a job, in thousandths of a kudo.

    image_base: for any picture.
    image_sizes: points (pixels, thousandths for 30 steps with 2 guidance passes), straight lines between them.
    image_extras: thousandths for each priced extra, by name; a picture may ask for no other.
    text_base: for any text.
    text_token: for each token made, by a model of 1000 permille.
    text_context: for each 1024 tokens of room for prompt and answer together, by a model of 1000 permille.
    text_sizes: points (millions of parameters, permille), straight lines between them: the factor of a model's size.
    model_millions: size of a model that the table `models` does not name.
    tax: for each job, whatever its size; burned. tax_shared: the same where the result is shared.
    plugin: name of an entry point in the group `potluck.prices`, which prices jobs in place of the formulas; empty for
    none. Peers cannot compute its prices and ask for them.
    """

    image_base: Natural = 2_500
    image_sizes: Points = (
        (262_144, 5_100),
        (589_824, 9_300),
        (1_048_576, 18_500),
        (2_359_296, 54_500),
        (4_194_304, 111_500),
    )
    image_extras: dict[str, Natural] = {}
    text_base: Natural = 500
    text_token: Natural = 55
    text_context: Natural = 400
    text_sizes: Points = ((100, 400), (1_000, 600), (7_000, 1_000), (13_000, 1_200), (70_000, 2_000))
    model_millions: Positive = 7_000
    tax: Natural = 3_000
    tax_shared: Natural = 1_000
    plugin: Annotated[str, Meta(max_length=60)] = ""


class LimitsSection(Section, frozen=True, kw_only=True):
    """The largest job that this horde takes, and how much at once.

    max_pixels, max_steps: of a picture. max_tokens, max_context: of a text. max_n: results of one request.
    anonymous_*: the same for people without an account.
    open_jobs: jobs of one account that are not ended; anonymous_open_jobs: of one address block without account.
    without_kudos_running: jobs of one account with too little kudos that workers make at once; what is above waits.
    anonymous_running: the same of one address block without account.
    user_open_jobs, user_running: both for one user of a service, within what the service has as any account.
    connections: of one address at once, before and after hello.
    """

    max_pixels: Positive = 4_194_304
    max_steps: Positive = 150
    max_tokens: Positive = 4_096
    max_context: Positive = 131_072
    max_n: Positive = 20
    anonymous_max_pixels: Positive = 1_048_576
    anonymous_max_steps: Positive = 50
    anonymous_max_tokens: Positive = 512
    anonymous_max_context: Positive = 8_192
    anonymous_max_n: Positive = 4
    open_jobs: Positive = 1_000
    anonymous_open_jobs: Positive = 50
    without_kudos_running: Positive = 8
    anonymous_running: Positive = 4
    user_open_jobs: Positive = 100
    user_running: Positive = 4
    connections: Positive = 256


class TimesSection(Section, frozen=True, kw_only=True):
    """How long things may take, in seconds.

    hello: from connecting to a complete hello. accept: from lease to acceptance. open: from acceptance to the opening
    of the stream. worker_grace: how long a worker may be away. image_lease, text_lease: from lease to deadline.
    waiting: time to live of a waiting job, counted only while it waits. cancel: for a partial receipt after a cancel.
    silence: from receipt to settlement when the requester says nothing. restart_grace: added to all of these after a
    restart of the tracker.
    """

    hello: Positive = 10
    accept: Positive = 5
    open: Positive = 10
    worker_grace: Positive = 10
    image_lease: Positive = 600
    text_lease: Positive = 600
    waiting: Positive = 7_200
    cancel: Positive = 10
    silence: Positive = 86_400
    restart_grace: Positive = 10


class MatchingSection(Section, frozen=True, kw_only=True):
    """Who is served next, and how often a job is tried.

    failed_attempts: attempts that may fail before the job does. every: each so-many-th lease of a swarm goes to who
    waited longest; 0 switches that off. declines: leases that the workers of one owner may turn down in an hour; who
    turns down more gets none until the hour is over. half_life_days: in so many days half of the free work taken is
    forgotten.
    """

    failed_attempts: Positive = 3
    every: Natural = 4
    declines: Positive = 4
    half_life_days: Positive = 30


class MintSection(Section, frozen=True, kw_only=True):
    """Kudos minted for jobs whose requester has too little.

    daily: thousandths that may be minted in a day (UTC). steps: points (permille of the day's budget used up to which
    the rate holds, permille of a free part that is minted); past the last one nothing is minted. owners: nothing is
    minted for a job that workers of fewer different owners could have served. owner_share, asker_share: permille of
    the day's budget that one owner can get, and that can be minted for one asker (account, or address block of people
    without one). owner_base: thousandths that one owner can get in a day in any case; owner_matched: permille of what
    people with kudos paid it that day which it can get besides.
    """

    daily: Natural = 100_000_000
    steps: Points = ((500, 1_000), (750, 500), (900, 250), (1_000, 100))
    owners: Positive = 2
    owner_share: Permille = 400
    asker_share: Permille = 250
    owner_base: Natural = 1_000_000
    owner_matched: Natural = 1_000


class EarningSection(Section, frozen=True, kw_only=True):
    """Probation: part of what a new owner earns waits until it is trusted.

    withheld: permille of its pay; 0 switches probation off. trust_jobs: jobs of its workers that were paid.
    trust_days: days since it registered. fault_days: days since the last refunded denial against it.
    """

    withheld: Permille = 500
    trust_jobs: Natural = 20
    trust_days: Natural = 3
    fault_days: Natural = 7


class TransfersSection(Section, frozen=True, kw_only=True):
    """Kudos that accounts give each other.

    mode: `on`, `limited` or `off`. Where limited: daily: thousandths that one account may give in a day (UTC).
    age_days: days since it registered; and it gives no more than it has earned by serving.
    """

    mode: Literal["on", "limited", "off"] = "limited"
    daily: Natural = 100_000
    age_days: Natural = 7


class AccountsSection(Section, frozen=True, kw_only=True):
    """Who may have an account.

    registration: `open` (every key that asks), `invited` (with a code of the operator) or `closed`. anonymous: whether
    people without an account are served; where not, the horde is for its members alone.
    """

    registration: Literal["open", "invited", "closed"] = "open"
    anonymous: bool = True


class LedgerSection(Section, frozen=True, kw_only=True):
    """What anybody may read of the ledger. delay_days: days after its own at which an entry can be read."""

    delay_days: Natural = 1


class ReachSection(Section, frozen=True, kw_only=True):
    """Whether people can connect to a worker, or to a peer that relays, at the address that it comes from.

    test: whether the tracker tries. every: seconds between two tests of one peer. a_minute: tests of all peers.
    """

    test: bool = True
    every: Positive = 60
    a_minute: Positive = 60


class MeetSection(Section, frozen=True, kw_only=True):
    """Hole punching: two peers behind routers connect to each other at the same moment, timed by the tracker.

    punching: whether it is tried. tries: how often for one attempt.
    """

    punching: bool = True
    tries: Annotated[int, Meta(ge=1, le=10)] = 3


class RelaysSection(Section, frozen=True, kw_only=True):
    """Streams of peers that cannot connect to each other pass through a relay, which cannot read them.

    tracker: whether the tracker relays. volunteers: whether peers that offer it do. streams: that the tracker relays at
    once. of_one: of one address block at once, at the tracker. max_bytes: of one attempt, both directions together.
    max_rate: bytes a second of one attempt. seconds: how long a ticket serves.
    """

    tracker: bool = True
    volunteers: bool = True
    streams: Positive = 64
    of_one: Positive = 4
    max_bytes: Positive = 268_435_456
    max_rate: Positive = 4_194_304
    seconds: Positive = 600


class FilterSection(Section, frozen=True, kw_only=True):
    """What the prompt filter does beyond the red line (sexual content about minors), which no rule moves.

    adult, violence, people, hate, other: what becomes of a prompt with such words: `allow`; `label` (the job is marked
    with it); `replace` (it has to be asked again without them, which costs nothing); `refuse` (which counts a strike).
    strikes: refusals without consequence. timeout: seconds for which nothing is taken after the next one, doubled with
    each further one. longest_timeout: the most it becomes. forget: seconds in which one strike is forgotten.
    lists: SHA-256 of the word lists in force, in hex, by name; the tracker fills it in.
    """

    adult: Treatment = "label"
    violence: Treatment = "label"
    people: Treatment = "label"
    hate: Treatment = "label"
    other: Treatment = "refuse"
    strikes: Natural = 3
    timeout: Positive = 300
    longest_timeout: Positive = 604_800
    forget: Positive = 86_400
    lists: Annotated[dict[str, HexDigest], Meta(max_length=128)] = {}

    def treatments(self) -> dict[str, Treatment]:
        """How this horde treats each topic of the filter."""
        return {
            "adult": self.adult,
            "violence": self.violence,
            "people": self.people,
            "hate": self.hate,
            "other": self.other,
        }


class RolesSection(Section, frozen=True, kw_only=True):
    """Who acts for this horde, by their keys as `potluck account` shows them.

    operators: make kudos and do all that moderators do. moderators: act by signed documents in a public log.
    """

    operators: Annotated[tuple[KeyText, ...], Meta(max_length=32)] = ()
    moderators: Annotated[tuple[KeyText, ...], Meta(max_length=256)] = ()


class ModerationSection(Section, frozen=True, kw_only=True):
    """What moderators need for their acts.

    signers: keys that have to sign a ban, or a return of more than `return_alone` thousandths. appeals: that an account
    may have open against one act.
    """

    signers: Annotated[int, Meta(ge=1, le=2)] = 2
    return_alone: Natural = 50_000
    appeals: Annotated[int, Meta(ge=1, le=10)] = 3


class VotesSection(Section, frozen=True, kw_only=True):
    """Who may propose changes of rules and vote on them, and for how long.

    standing: thousandths that an account must have been paid for serving within `days`, before the vote began. days:
    so many. open: how long a vote lasts, in seconds. quorum: votes that there must be at least; of these more than half
    decide. proposals: that one account may have open at once; 0 switches votes off.
    """

    standing: Positive = 100_000
    days: Annotated[int, Meta(ge=1, le=366)] = 30
    open: Positive = 604_800
    quorum: Positive = 3
    proposals: Natural = 1


class PreviewsSection(Section, frozen=True, kw_only=True):
    """Small pictures of work in progress. allowed: whether workers send any. every: denoising steps between two."""

    allowed: bool = True
    every: Positive = 5


class ModelSection(Section, frozen=True, kw_only=True):
    """What the horde knows of one model.

    price: factor in permille. millions: size in millions of parameters; 0 means `prices.model_millions`.
    """

    price: Natural = 1_000
    millions: Natural = 0


class CatalogueSection(Section, frozen=True, kw_only=True):
    """Which models may be served: the catalogue is the file `models.toml`.

    listed_only: those of the catalogue alone. open_only: those of it whose licence is open, alone. open_licences: SPDX
    ids that count as open. digest: SHA-256 of the catalogue as published, in hex, empty for none; the tracker fills it
    in.
    """

    listed_only: bool = False
    open_only: bool = False
    open_licences: Annotated[tuple[LicenceId, ...], Meta(max_length=256)] = OPEN
    digest: Annotated[str, Meta(max_length=64)] = ""


class Rules(Section, frozen=True, kw_only=True):
    """All rules of a horde."""

    horde: HordeSection = HordeSection()
    prices: PricesSection = PricesSection()
    limits: LimitsSection = LimitsSection()
    times: TimesSection = TimesSection()
    matching: MatchingSection = MatchingSection()
    mint: MintSection = MintSection()
    earning: EarningSection = EarningSection()
    transfers: TransfersSection = TransfersSection()
    accounts: AccountsSection = AccountsSection()
    ledger: LedgerSection = LedgerSection()
    reach: ReachSection = ReachSection()
    meet: MeetSection = MeetSection()
    relays: RelaysSection = RelaysSection()
    filter: FilterSection = FilterSection()
    previews: PreviewsSection = PreviewsSection()
    roles: RolesSection = RolesSection()
    moderation: ModerationSection = ModerationSection()
    votes: VotesSection = VotesSection()
    catalogue: CatalogueSection = CatalogueSection()
    models: dict[str, ModelSection] = {}


def to_json(rules: Rules) -> str:
    """The rules as the JSON text that is signed and published; the same rules always give the same text."""
    return msgspec.json.encode(rules, order="deterministic").decode()


def from_json(text: str) -> Rules:
    """The rules in a published text; raises `msgspec.DecodeError`. Keys of a newer version are ignored."""
    return msgspec.json.decode(text, type=Rules)
