"""What every key of `horde.toml` means to an operator, and the commented file that `init` writes from it.

One table for all: the file's comments and the rows of docs/rules.md come from `NOTES`, defaults from the types.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_origin

import msgspec

from protocol.rules import Rules
from tracker.config import SECTIONS

_WIDTH = 110


@dataclass(frozen=True)
class Note:
    """unit: of the value. meaning: what it says. effect: what changes when it is raised, lowered or switched."""

    unit: str
    meaning: str
    effect: str


#: What each table is for.
TABLES: dict[str, str] = {
    "horde": "Who this horde is.",
    "prices": "What a worker earns for a job. All kudos are integers in thousandths of a kudo.",
    "limits": "The largest job that this horde takes, and how much at once.",
    "times": "How long things may take.",
    "matching": "Who is served next, and how often a job is tried.",
    "mint": "Kudos made for jobs whose requester has too little, so that the worker is paid all the same.",
    "earning": "Probation: part of what a new owner earns waits until it is trusted. The owner sees how much, and why.",
    "transfers": "Kudos that accounts give each other. They have no memo and no price: they say thank you.",
    "accounts": "Who may have an account, and whether anybody needs one to be served.",
    "ledger": "What anybody may read of the ledger, over HTTP: `potluck audit` checks it.",
    "reach": "Whether people can connect to a worker, or to a peer that relays, at the address that it comes from.",
    "meet": "Hole punching: two peers behind routers connect to each other at the same moment, timed by the tracker.",
    "relays": "Streams of peers that cannot connect to each other pass through a relay, which cannot read them.",
    "filter": (
        "What becomes of prompts by their words. Sexual content about minors is refused everywhere, by no rule of this"
        " table. docs/content.md says more."
    ),
    "previews": "Small pictures of work in progress, from worker to requester.",
    "roles": "Who acts for this horde, by key. The serving key is an operator's without being named.",
    "moderation": "What moderators need for their acts. docs/moderation.md says what acts there are.",
    "votes": "Who may propose changes of rules and vote on them. docs/votes.md says how it goes.",
    "catalogue": (
        "Which models may be served. What the horde knows of them stands in `models.toml` beside this file:"
        " docs/models.md says how."
    ),
    "models": 'What the horde knows of single models, one table for each: `[models."name"]`.',
    "server": "How this process runs. Unlike the rules above, nothing of it is published.",
}

_TREATMENT = "'allow', 'label', 'replace' or 'refuse'"
_POINTS = "Straight lines join the points; the last one's slope goes on. "

NOTES: dict[str, Note] = {
    "horde.name": Note("text", "The name that people see, up to 60 characters.", "Shown in the link and on the page."),
    "prices.image_base": Note(
        "thousandths", "Price of any picture, before its size.", "Higher favours small pictures."
    ),
    "prices.image_sizes": Note(
        "points [pixels, thousandths]",
        "Price of a picture by its size, for 30 steps with guidance. " + _POINTS,
        "Steeper makes large pictures dearer.",
    ),
    "prices.image_extras": Note(
        "thousandths by name",
        "Priced extras that a picture may ask for, as { name = 1000 }.",
        "An extra that is not listed is refused.",
    ),
    "prices.text_base": Note("thousandths", "Price of any text, before its length.", "Higher favours long texts."),
    "prices.text_token": Note(
        "thousandths", "Price of each token made, by a model of factor 1000.", "Higher makes long answers dearer."
    ),
    "prices.text_context": Note(
        "thousandths",
        "Price of each 1024 tokens of room for prompt and answer, by a model of factor 1000.",
        "Higher makes long conversations dearer.",
    ),
    "prices.text_sizes": Note(
        "points [millions of parameters, permille]",
        "Factor of a text model's size. " + _POINTS,
        "Steeper pays large models better.",
    ),
    "prices.model_millions": Note(
        "millions of parameters",
        "Size of a text model that `models` does not name.",
        "Higher prices unknown models up.",
    ),
    "prices.tax": Note(
        "thousandths",
        "Burned for each job, whatever its size.",
        "Higher lets kudos vanish faster; 0 switches the tax off.",
    ),
    "prices.tax_shared": Note(
        "thousandths",
        "The same for a job whose result is given to the open data set.",
        "Lower thanks people more for sharing.",
    ),
    "prices.plugin": Note(
        "text",
        "Name of an entry point in the group `potluck.prices` that prices jobs in place of the formulas; empty: none.",
        "Peers cannot compute its prices and ask the tracker; an audit can check them against `max_price` only.",
    ),
    "limits.max_pixels": Note("pixels", "Largest picture.", "A larger request is refused with `over_limit`."),
    "limits.max_steps": Note("denoising steps", "Most steps of a picture.", "A larger request is refused."),
    "limits.max_tokens": Note("tokens", "Longest answer.", "A larger request is refused."),
    "limits.max_context": Note("tokens", "Most room for prompt and answer together.", "A larger request is refused."),
    "limits.max_n": Note("results", "Most results of one request.", "A larger request is refused."),
    "limits.anonymous_max_pixels": Note(
        "pixels", "Largest picture without an account.", "Lower keeps anonymous work short."
    ),
    "limits.anonymous_max_steps": Note(
        "denoising steps", "Most steps without an account.", "Lower keeps anonymous work short."
    ),
    "limits.anonymous_max_tokens": Note(
        "tokens", "Longest answer without an account.", "Lower keeps anonymous work short."
    ),
    "limits.anonymous_max_context": Note(
        "tokens", "Most room for prompt and answer without an account.", "Lower keeps anonymous work short."
    ),
    "limits.anonymous_max_n": Note(
        "results", "Most results of one request without an account.", "Lower keeps anonymous bursts short."
    ),
    "limits.open_jobs": Note(
        "jobs", "Jobs of one account that are not ended.", "At the limit, further requests are refused until one ends."
    ),
    "limits.anonymous_open_jobs": Note(
        "jobs",
        "The same for all peers without an account in one address block (/24 for IPv4, /48 for IPv6).",
        "Lower keeps one place from filling the queue.",
    ),
    "limits.without_kudos_running": Note(
        "jobs",
        "Jobs of one account without enough kudos that workers make at once.",
        "What is above waits and is not refused. Lower shares workers among more people.",
    ),
    "limits.anonymous_running": Note(
        "jobs",
        "The same for all peers without an account in one address block.",
        "What is above waits and is not refused. Lower keeps one place from taking all idle workers.",
    ),
    "limits.user_open_jobs": Note(
        "jobs",
        "Jobs of one user of a service that are not ended, where the service names its users.",
        "At the limit, further requests for that user are refused. A service as a whole has what any account has.",
    ),
    "limits.user_running": Note(
        "jobs",
        "Jobs of one user of a service without enough kudos that workers make at once.",
        "What is above waits and is not refused. Lower shares what the service has among more of its users.",
    ),
    "limits.connections": Note(
        "connections",
        "Connections of one address at once (IPv6: of one /64), before and after hello; in a minute it may make twenty"
        " times as many.",
        "One more is answered with HTTP status 429. Raise it where many peers share an address.",
    ),
    "times.hello": Note("seconds", "From connecting to a complete hello.", "Who is slower is cut off."),
    "times.accept": Note(
        "seconds", "From lease to acceptance by the worker.", "Later, the job goes to another worker; nobody is blamed."
    ),
    "times.open": Note(
        "seconds",
        "From acceptance to the requester's opening of the stream.",
        "Later, the job waits again, and the attempt counts.",
    ),
    "times.worker_grace": Note(
        "seconds", "How long a worker may be away.", "Longer forgives lost connections, and delays the next attempt."
    ),
    "times.image_lease": Note(
        "seconds",
        "From lease to deadline, for a picture.",
        "Too short fails slow workers; too long delays the next try.",
    ),
    "times.text_lease": Note("seconds", "From lease to deadline, for a text.", "As above."),
    "times.waiting": Note(
        "seconds", "How long a job may wait, counting only while it waits.", "Then it expires, and its hold goes back."
    ),
    "times.cancel": Note(
        "seconds", "For a partial receipt after a cancel.", "A receipt in time is paid in proportion; none is not paid."
    ),
    "times.silence": Note(
        "seconds",
        "From receipt to payment when the requester says nothing.",
        "Workers keep their results so long.",
    ),
    "times.restart_grace": Note(
        "seconds",
        "Added to all times above after a restart of the tracker.",
        "Longer gives peers more time to come back.",
    ),
    "matching.failed_attempts": Note(
        "attempts", "Attempts that may fail before the job does.", "More tries harder, and costs workers more time."
    ),
    "matching.every": Note(
        "leases",
        "Each so-many-th lease of a swarm goes to who waited longest, whatever the rank.",
        "Lower is kinder to people without kudos; 0 switches it off, and then they can starve.",
    ),
    "matching.declines": Note(
        "leases",
        "So many leases the workers of one owner may turn down in an hour; with more they get none until it is over.",
        "Lower keeps workers from picking what is paid; higher is kinder to workers with unusual limits.",
    ),
    "matching.half_life_days": Note(
        "days", "In so many days half of the free work taken is forgotten in the rank.", "Longer remembers longer."
    ),
    "mint.daily": Note(
        "thousandths",
        "What may be minted in a day (UTC).",
        "It bounds what workers get for free work, never who is served.",
    ),
    "mint.steps": Note(
        "points [permille of the budget used, permille minted]",
        "Up to which part of the day's budget which part of a free job's price is minted. No lines between: steps.",
        "Past the last step nothing is minted.",
    ),
    "mint.owners": Note(
        "owners",
        "Nothing is minted for a job that workers of fewer different owners could have served.",
        "Higher makes it harder to mint by asking oneself; 1 lets a horde with one owner mint.",
    ),
    "mint.owner_share": Note(
        "permille of the day's budget",
        "What one owner can get of a day's budget.",
        "Lower leaves more for other owners; 1000 switches this off.",
    ),
    "mint.asker_share": Note(
        "permille of the day's budget",
        "What can be minted in a day for one account, or for one address block of people without one.",
        "Lower leaves more for other people's jobs; 1000 switches this off.",
    ),
    "mint.owner_base": Note(
        "thousandths",
        "What one owner can get of a day's budget in any case, within `owner_share`.",
        "Lower leaves less to whoever asks itself through throw-away keys; more is minted for those who are paid.",
    ),
    "mint.owner_matched": Note(
        "permille of what it was paid",
        "What one owner can get besides, of what people with kudos paid it that day.",
        "Kudos that somebody earned and spends cannot be had by asking oneself; 0 leaves the base alone.",
    ),
    "earning.withheld": Note(
        "permille",
        "Part of a new owner's pay that waits until it is trusted.",
        "Higher makes throw-away workers worth less; 0 switches probation off.",
    ),
    "earning.trust_jobs": Note(
        "jobs", "Jobs that its workers have to be paid for.", "Higher keeps new owners waiting longer."
    ),
    "earning.trust_days": Note("days", "Days since it registered.", "Higher keeps new owners waiting longer."),
    "earning.fault_days": Note(
        "days",
        "Days without a refunded denial against it.",
        "Higher keeps owners whose results were denied waiting longer; 0 forgets faults at once.",
    ),
    "transfers.mode": Note(
        "'on', 'limited' or 'off'",
        "Whether accounts can give each other kudos: all they have, within the limits below, or nothing.",
        "`on` makes it worth while to gather kudos in many accounts.",
    ),
    "transfers.daily": Note(
        "thousandths", "What one account may give in a day (UTC), where limited.", "Lower slows the gathering of kudos."
    ),
    "transfers.age_days": Note(
        "days",
        "Days since it registered before an account may give, where limited; it gives no more than it has earned.",
        "Higher keeps throw-away accounts from giving.",
    ),
    "accounts.registration": Note(
        "'open', 'invited' or 'closed'",
        "Whether a key that asks becomes an account: all, those with a code of `potluck-tracker admin invite`, none.",
        "Keys without an account stay anonymous: they can ask and cannot serve.",
    ),
    "accounts.anonymous": Note(
        "true or false",
        "Whether people without an account are served.",
        "Where false, the horde is for its members: their link and its page say so, and who asks as nobody is refused"
        " with what to do. What was taken before goes on.",
    ),
    "ledger.delay_days": Note(
        "days",
        "Days after its own (UTC) at which an entry of the ledger can be read by anybody; 0: at once.",
        "Lower lets people who watch see at what time each account gave and took, and so who served whom. Proofs are"
        " given at once in any case.",
    ),
    "reach.test": Note(
        "true or false",
        "Whether the tracker tries to connect to workers and relays, at the address that they come from.",
        "Without it workers do not learn whether people can connect to them, and no peer can volunteer to relay.",
    ),
    "reach.every": Note(
        "seconds",
        "Between two tests of a peer that could not be reached, about; changed addresses are tested at once.",
        "Lower notices changed routers sooner.",
    ),
    "reach.a_minute": Note(
        "tests", "Tests of all peers together in a minute.", "What is above waits its turn. Raise it in a large horde."
    ),
    "meet.punching": Note(
        "true or false",
        "Whether peers that cannot connect directly are told to connect to each other at the same moment.",
        "Without it their streams pass through a relay. Each of the two learns the other's address.",
    ),
    "meet.tries": Note(
        "tries, 1 to 10", "Tries for one attempt.", "More passes more routers, and takes a second each."
    ),
    "relays.tracker": Note(
        "true or false",
        "Whether the tracker relays streams itself.",
        "It costs bandwidth; without it, peers that volunteer are needed.",
    ),
    "relays.volunteers": Note(
        "true or false",
        "Whether peers that offer it relay streams, with `potluck relay` or `potluck worker --relay`.",
        "A relay learns two addresses and how much passes, and nothing else.",
    ),
    "relays.streams": Note(
        "streams", "Streams that the tracker relays at once.", "More takes more bandwidth and memory."
    ),
    "relays.of_one": Note(
        "streams",
        "Streams of one address block at once at one relay, counted apart for requesters and for workers.",
        "Raise it where many peers share an address.",
    ),
    "relays.max_bytes": Note(
        "bytes",
        "What may pass at one relay for one attempt, both directions together.",
        "More than the largest result takes; a stream that needs more goes by another relay, if there is one.",
    ),
    "relays.max_rate": Note(
        "bytes per second", "How fast it may pass for one attempt.", "Lower leaves more bandwidth for the rest."
    ),
    "relays.seconds": Note(
        "seconds", "How long a ticket serves.", "A stream that takes longer asks for another ticket."
    ),
    "filter.adult": Note(
        _TREATMENT, "Prompts with adult content.", "`refuse` counts a strike, `replace` asks for another wording."
    ),
    "filter.violence": Note(_TREATMENT, "Prompts with cruelty and gore.", "The same."),
    "filter.people": Note(
        _TREATMENT, "Prompts that name people who live.", "The same. The shipped list is short: add to it."
    ),
    "filter.hate": Note(_TREATMENT, "Prompts with hate against groups of people.", "The same."),
    "filter.other": Note(_TREATMENT, "Prompts with words of the horde's own lists of this category.", "The same."),
    "filter.strikes": Note(
        "refused prompts", "So many have no consequence but the refusal.", "Lower is harder on mistakes."
    ),
    "filter.timeout": Note(
        "seconds",
        "For so long nothing is taken after the next one; each further one doubles it.",
        "Longer keeps those away who try out the filter. It holds for an account, an address block without one, or one"
        " user of a service.",
    ),
    "filter.longest_timeout": Note("seconds", "The most that this becomes.", "Longer is harder on those who go on."),
    "filter.forget": Note("seconds", "In so long one strike is forgotten.", "Shorter forgives sooner."),
    "filter.lists": Note(
        "SHA-256 by name",
        "The word lists in force. The tracker fills it in from those that it ships and those in the folder `filter`.",
        "Peers get the lists by their digests and check the same.",
    ),
    "previews.allowed": Note("true or false", "Whether workers send previews.", "Without them people wait blindly."),
    "previews.every": Note(
        "denoising steps",
        "Steps between two previews. Workers leave out those that would take more than a fiftieth of a picture's time.",
        "More saves the workers' time.",
    ),
    "roles.operators": Note(
        "keys",
        "Keys that make kudos (`admin award`) and do all that moderators do, from anywhere.",
        "Who is taken out can act no more; what was done stands.",
    ),
    "roles.moderators": Note(
        "keys",
        "Keys that warn, limit, suspend, ban, pause, trust, return kudos and block, by signed acts in a public log.",
        "Who is taken out can act no more; what was done stands.",
    ),
    "moderation.signers": Note(
        "keys",
        "How many different keys have to sign a ban, or a return of many kudos, before it is so.",
        "With 1 a single key does what cannot be undone: for a horde whose operator is alone.",
    ),
    "moderation.return_alone": Note(
        "thousandths",
        "The most kudos that one moderator returns alone.",
        "Higher needs fewer second signatures; 0 needs one for every return.",
    ),
    "moderation.appeals": Note(
        "appeals",
        "Appeals that one account may have open against one act.",
        "Higher lets people say more before a moderator has answered.",
    ),
    "votes.standing": Note(
        "thousandths",
        "What an account must have been paid for serving, within `days` before a vote began, to propose and to vote.",
        "Higher asks for more work for each voice, so that many accounts cost as many times the work.",
    ),
    "votes.days": Note("days", "Within so many days before the vote began.", "Fewer count who serves now."),
    "votes.open": Note("seconds", "How long a vote lasts.", "Longer lets more people hear of it."),
    "votes.quorum": Note(
        "votes",
        "So many votes there must be; more than half of them decide.",
        "Higher keeps few people from deciding for all.",
    ),
    "votes.proposals": Note(
        "proposals", "That one account may have open at once.", "0 switches proposals off; votes under way go on."
    ),
    "catalogue.listed_only": Note(
        "true or false",
        "Whether only models of the catalogue are served.",
        "Where true, a worker's offer of another model is refused by its name.",
    ),
    "catalogue.open_only": Note(
        "true or false",
        "Whether only models of the catalogue are served whose licence is open.",
        "Where true, so is an offer of a model with another licence, or with none that is known.",
    ),
    "catalogue.open_licences": Note(
        "SPDX ids",
        "Licences that count as open. The default has those that the OSI approved or the FSF calls free.",
        "A licence that is added lets its models be served under `open_only`; one with a name of its own is"
        " `LicenseRef-` and a name.",
    ),
    "catalogue.digest": Note(
        "SHA-256, in hex",
        "The catalogue in force, empty for none. The tracker fills it in from `models.toml`.",
        "Workers get the catalogue by it and check the files of their models.",
    ),
    "models.price": Note("permille", "Factor of this model's prices.", "2000 pays double; 0 pays nothing."),
    "models.millions": Note(
        "millions of parameters",
        "Size of this model, for a text's price; 0 means `prices.model_millions`.",
        "A larger size is paid better.",
    ),
    "server.listen": Note(
        "host:port",
        "Where to listen; IPv6 addresses in brackets. Port 0 lets the system choose.",
        "Behind a reverse proxy, keep it on 127.0.0.1.",
    ),
    "server.url": Note(
        "ws:// or wss:// address",
        "The address that the link shows; empty: made from `listen`.",
        "Needed behind a proxy, and when listening on all addresses. Peers refuse ws:// over the internet.",
    ),
    "server.database": Note(
        "file", "The database, from this file's folder.", "Its two companions (-wal and -shm) lie beside it."
    ),
    "server.delegation": Note(
        "file", "The root key's delegation to the serving key.", "`serve` does not run without it."
    ),
    "server.serving_key": Note("file", "The key that this process signs with.", "Mode 0600, or `serve` refuses it."),
    "server.certificate": Note(
        "file",
        "The TLS certificate in PEM, those that vouch for it behind it; empty: no TLS here.",
        "With `private_key` the tracker speaks TLS itself; alone, a proxy does. Links have a self-signed one's digest.",
    ),
    "server.private_key": Note(
        "file",
        "The private key of that certificate, in PEM without a password.",
        "Mode 0600, or `serve` refuses it. Both files are read again on SIGHUP.",
    ),
    "server.trusted_proxies": Note(
        "networks",
        "Proxies that are believed about where connections come from, as ['127.0.0.1', '10.0.0.0/8'].",
        "Nobody else is, so that nobody can choose an address.",
    ),
    "server.forwarded_header": Note(
        "'X-Forwarded-For' or 'Forwarded'",
        "The header in which trusted proxies name address and port of their client.",
        "The other one is ignored: a proxy passes on what its clients wrote into it.",
    ),
    "server.proxy_protocol": Note(
        "true or false",
        "Whether trusted proxies begin each connection with a PROXY header (version 1 or 2).",
        "Where true, a connection of theirs without one is cut off.",
    ),
    "server.heartbeat": Note(
        "seconds",
        "Between two pings on a quiet connection.",
        "A peer that does not answer within half of it is taken for gone.",
    ),
    "server.outbox": Note(
        "messages", "Messages that may wait for one peer.", "A peer that takes them too slowly is cut off."
    ),
    "server.stop_grace": Note(
        "seconds", "How long connections may take to close when the tracker stops.", "Then they are cut."
    ),
}


def keys() -> Iterator[tuple[str, object]]:
    """Each key of the file with its default, in the file's order; those of `models` once, for any model."""
    for table, of in SECTIONS.items():
        defaults = of()
        for name in of.__struct_fields__:
            yield f"{table}.{name}", getattr(defaults, name)


def toml_value(value: object) -> str:
    """The value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if value > 9_999 else str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case tuple():
            return f"[{', '.join(toml_value(item) for item in value)}]"
        case Mapping():
            return "{" + ", ".join(f"{json.dumps(name)} = {toml_value(item)}" for name, item in value.items()) + "}"
        case _:
            raise TypeError(f"no TOML for {value!r}")


def default_toml(given: Mapping[str, object] | None = None, reasons: Mapping[str, str] | None = None) -> str:
    """The file that `init` writes: every key with meaning, unit and default in a comment, those in `given` set; with
    the reasons for some of these."""
    given, reasons = given or {}, reasons or {}
    lines = [
        "# The rules of this horde, and how its tracker runs.",
        "# A line that begins with # and a key shows a default; take the # away to change it.",
        "# `potluck-tracker check` reads this file and names every mistake with its line.",
    ]
    for table in SECTIONS:
        lines += ["", *_comment(TABLES[table])]
        lines += ['# [models."name"]'] if _is_by_name(table) else [f"[{table}]"]
        for key, default in keys():
            if key.partition(".")[0] == table:
                lines += _setting(key, default, given, reasons.get(key, ""))
    return "\n".join(lines) + "\n"


def row(key: str, default: object) -> str:
    """The row of docs/rules.md for one key."""
    note = NOTES[key]
    return f"| `{key}` | {note.unit} | `{toml_value(default)}` | {note.meaning.strip()} | {note.effect} |"


def _setting(key: str, default: object, given: Mapping[str, object], reason: str) -> list[str]:
    note = NOTES[key]
    table, _, name = key.partition(".")
    comment = [
        "",
        *_comment(f"{note.meaning.strip()} {note.effect}"),
        *_comment(f"Unit: {note.unit}. Default: {toml_value(default)}"),
        *(_comment(f"Here: {reason}") if reason else ()),
    ]
    if _is_by_name(table):
        return [*comment, f"# {name} = {toml_value(default)}"]
    line = f"{name} = {toml_value(given[key])}" if key in given else f"#{name} = {toml_value(default)}"
    return [*comment, line]


def _is_by_name(table: str) -> bool:
    return any(field.name == table and get_origin(field.type) is dict for field in msgspec.structs.fields(Rules))


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]
