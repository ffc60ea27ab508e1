"""The horde's catalogue of models: the file `models.toml` beside `horde.toml`, and what it means for offers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from msgspec import structs
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from protocol import catalogue
from protocol.catalogue import MAX_BYTES, MAX_FILES, MAX_MODELS, NOTHING, Catalogue, Model, digest, to_json
from protocol.errors import NotOffered
from protocol.messages import Announce
from protocol.rules import CatalogueSection, ModelSection, Rules
from protocol.toml_file import ConfigError, tables_of, text_of
from protocol.work import Kind, PublicPart, kind_of
from tracker.config import Reader, price_checks, size_checks

FILE_NAME = "models.toml"
#: To judge a catalogue by itself.
NO_RULES = Rules()
#: What every entry has to say.
WANTED = ("kind", "licence", "millions")
#: Catalogues of earlier rules, which workers may still ask for.
KEPT = 4
#: Models that are named to who asked for what nobody may serve; and of those that he named, why each may not.
LISTED = 20
TOLD = 3


def catalogue_of(folder: Path, rules: Rules) -> Catalogue:
    """The catalogue of the horde in `folder`, empty without a file; raises `ConfigError` with every fault that it has.
    rules: those of `horde.toml`, which it must go with."""
    path = folder / FILE_NAME
    if not path.exists():
        return NOTHING
    return parse(text_of(path), path, rules)


def parse(text: str, path: Path, rules: Rules) -> Catalogue:
    """The catalogue in `text`, which stands in `path`; raises `ConfigError`."""
    tables = tables_of(text, path)
    reader = Reader(path, text)
    for name in tables:
        if name != "models":
            reader.fault((name,), 'unknown table; known is models, one for each model: [models."name"]')
    found = tables.get("models", {})
    models: dict[str, Model] = {}
    if reader.is_table(found, ("models",)):
        if len(found) > MAX_MODELS:
            reader.fault(("models",), f"{len(found)} models: wanted at most {MAX_MODELS}")
        for name, facts in found.items():
            if reader.is_name(("models", name), 120) and reader.is_table(facts, ("models", name)):
                models[name] = _model(reader, name, facts, rules)
    read = Catalogue(models)
    if not reader.faults:
        size, together = len(to_json(read)), with_catalogue(rules, read)
        if size > MAX_BYTES:
            reader.fault(("models",), f"wanted at most {MAX_BYTES} bytes as published, found {size}: name fewer files")
        for key, fault in (*size_checks(together), *price_checks(together)):
            if key[:1] == ("models",):
                reader.fault(key, fault)
    if reader.faults:
        raise ConfigError(reader.faults_in_order())
    return read


def _model(reader: Reader, name: str, facts: Mapping[str, object], rules: Rules) -> Model:
    """One entry; its faults are noted."""
    key = ("models", name)
    for wanted in WANTED:
        if wanted not in facts:
            reader.fault(key, f"{wanted} is missing: wanted {', '.join(WANTED)}")
    model = reader.section(key, facts, Model)
    if name in rules.models:
        reader.fault(key, "horde.toml has this model too: keep its price and millions in one of the two files")
    if len(model.files) > MAX_FILES:
        reader.fault((*key, "files"), f"{len(model.files)} files: wanted at most {MAX_FILES}")
    for file in model.files:
        if "\\" in file or PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            reader.fault((*key, "files", file), "wanted a path below the model's folder, with / between its parts")
    if "licence" in facts:
        try:
            return structs.replace(model, licence=canonicalize_license_expression(model.licence))
        except InvalidLicenseExpression as error:
            text = f"wanted an SPDX id such as Apache-2.0, or LicenseRef- and a name: {error}"
            reader.fault((*key, "licence"), text)
    return model


def with_catalogue(rules: Rules, of: Catalogue) -> Rules:
    """The rules, with what prices need of the catalogue, and its digest."""
    if of == NOTHING:
        return rules
    facts = {name: ModelSection(price=model.price, millions=model.millions) for name, model in of.models.items()}
    told = {name: fact for name, fact in facts.items() if fact != ModelSection()}
    named = structs.replace(rules.catalogue, digest=digest(to_json(of)))
    return structs.replace(rules, models={**told, **rules.models}, catalogue=named)


class Listing:
    """The catalogue of this process."""

    def __init__(self, of: Catalogue = NOTHING) -> None:
        self._published: dict[str, bytes] = {}
        self._allowed: tuple[CatalogueSection, dict[Kind, list[str]]] | None = None
        self.use(of)

    def use(self, of: Catalogue) -> None:
        """Go by this one from now on."""
        self.catalogue = of
        self._allowed = None
        if of != NOTHING:
            raw = to_json(of)
            self._published.pop(digest(raw), None)
            self._published[digest(raw)] = raw
        while len(self._published) > KEPT:
            del self._published[next(iter(self._published))]

    def published(self, named: str) -> bytes | None:
        """The catalogue with this digest, as published."""
        return self._published.get(named)

    def bound(self, announce: Announce, rules: Rules) -> tuple[Announce, list[str]]:
        """What a worker may serve of what it announces, and why not the rest: one sentence for each model."""
        why = {
            (offer.kind, offer.model): catalogue.why_not(offer.model, offer.kind, self.catalogue, rules.catalogue)
            for offer in announce.offers
        }
        if not any(why.values()):
            return announce, []
        offers = tuple(offer for offer in announce.offers if not why[offer.kind, offer.model])
        return structs.replace(announce, offers=offers), [
            f"{name!r}: {text}" for (_, name), text in why.items() if text
        ]

    def check_asked(self, public: PublicPart, rules: Rules) -> None:
        """Refuse what no worker may ever serve here: a request whose models are all kept out, or for a kind of which
        the horde has none."""
        under, kind = rules.catalogue, kind_of(public.work)
        why = [(name, catalogue.why_not(name, kind, self.catalogue, under)) for name in public.models]
        if why and not all(text for _, text in why):
            return
        allowed = self._allowed_of(kind, under)
        if not why and (allowed or not catalogue.keeps_to_it(under)):
            return
        told = [f"{name!r}: {text}" for name, text in why[:TOLD]] or [
            f"for {kind} its catalogue has no model that may be served"
        ]
        shown = ", ".join(allowed[:LISTED]) + (f" and {len(allowed) - LISTED} more" if allowed[LISTED:] else "")
        known = f"; of its catalogue's models for {kind} there are: {shown}" if allowed else ""
        raise NotOffered(f"nobody may serve this in this horde: {'; '.join(told)}{known}")

    def _allowed_of(self, kind: Kind, under: CatalogueSection) -> list[str]:
        """The models of the catalogue that may be served; looked up once for a version of the rules."""
        if self._allowed is None or self._allowed[0] is not under:
            found: dict[Kind, list[str]] = {"image": [], "text": []}
            for name, model in sorted(self.catalogue.models.items()):
                if not catalogue.why_not(name, model.kind, self.catalogue, under):
                    found[model.kind].append(name)
            self._allowed = under, found
        return self._allowed[1][kind]
