"""`models.toml`: what stands in it, and what it means for the rules and for offers."""

from pathlib import Path

import pytest

from protocol.catalogue import NOTHING, digest, to_json
from protocol.errors import NotOffered
from protocol.messages import Announce
from protocol.rules import CatalogueSection, ModelSection, Rules
from tests.support.builders import a_public_part, a_text_work, an_image_work
from tests.support.peers import A_TEXT_OFFER, AN_OFFER
from tracker.catalogue import KEPT, Listing, catalogue_of, parse, with_catalogue
from tracker.config import ConfigError

FILE = Path("models.toml")
IMAGE, TEXT = AN_OFFER.model, A_TEXT_OFFER.model
GOOD = f"""
[models."{IMAGE}"]
kind = "image"
licence = "apache-2.0 or mit"
millions = 860
price = 2000
baseline = "sd1"
hub = "who/painter"
revision = "abc"

[models."{IMAGE}".files]
"unet/a.safetensors" = "{"1" * 64}"

[models."{TEXT}"]
kind = "text"
licence = "LicenseRef-closed"
millions = 0
"""


def faults_of(text: str, rules: Rules | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE, rules or Rules())
    return list(caught.value.faults)


def test_a_catalogue_is_read_with_its_licences_as_spdx_writes_them():
    found = parse(GOOD, FILE, Rules())

    assert found.models[IMAGE].licence == "Apache-2.0 OR MIT"
    assert found.models[IMAGE].files == {"unet/a.safetensors": "1" * 64}
    assert (found.models[IMAGE].hub, found.models[IMAGE].revision, found.models[IMAGE].baseline) == (
        "who/painter",
        "abc",
        "sd1",
    )


def test_the_rules_carry_its_digest_and_what_prices_need_and_leave_out_what_is_the_default():
    found = parse(GOOD, FILE, Rules())
    rules = with_catalogue(Rules(models={"mine": ModelSection(price=5)}), found)

    assert rules.catalogue.digest == digest(to_json(found))
    assert rules.models == {"mine": ModelSection(price=5), IMAGE: ModelSection(price=2_000, millions=860)}
    assert with_catalogue(Rules(), NOTHING) == Rules()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 3", 'models.toml:1: x: unknown table; known is models, one for each model: [models."name"]'),
        ("models = 3", "models.toml:1: models: wanted a table, found 3"),
        ("[models]\nx = 3", "models.toml:2: models.x: wanted a table, found 3"),
        (
            "[models.x]\nkind = 'image'\nlicence = 'MIT'",
            "models.toml:1: models.x: millions is missing: wanted kind, licence, millions",
        ),
        (
            "[models.x]\nkind = 'video'\nlicence = 'MIT'\nmillions = 1",
            "models.toml:2: models.x.kind: wanted 'image' or 'text', found 'video'",
        ),
        (
            "[models.x]\nkind = 'image'\nlicence = 'Apache 2'\nmillions = 1",
            "models.toml:3: models.x.licence: wanted an SPDX id such as Apache-2.0, or LicenseRef- and a name: ",
        ),
        (
            "[models.x]\nkind = 'image'\nlicence = 'MIT'\nmillions = -1",
            "models.toml:4: models.x.millions: wanted an integer of at least 0, found -1",
        ),
        (
            "[models.x]\nkind = 'image'\nlicense = 'MIT'\nlicence = 'MIT'\nmillions = 1",
            "models.toml:3: models.x.license: unknown key (did you mean licence?); known are kind, licence, millions,",
        ),
        (
            "[models.x]\nkind = 'image'\nlicence = 'MIT'\nmillions = 1\n[models.x.files]\n'a' = 'abc'",
            "models.toml:6: models.x.files.a: wanted 64 digits of hex, found 'abc'",
        ),
        (
            f"[models.x]\nkind = 'image'\nlicence = 'MIT'\nmillions = 1\n[models.x.files]\n'../a' = '{'0' * 64}'",
            'models.toml:6: models.x.files."../a": wanted a path below the model\'s folder',
        ),
        (
            "[models.x]\nkind = 'image'\nlicence = 'MIT'\nmillions = 1\nprice = 1_000_000_000_000",
            "models.toml:5: models.x.price: the largest image that limits allow would cost",
        ),
    ],
)
def test_a_mistake_is_told_with_file_line_key_what_was_found_and_what_is_allowed(text, fault):
    assert faults_of(text)[0].startswith(fault), faults_of(text)


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        ("tracker.catalogue.MAX_BYTES", "wanted at most 300 bytes as published, found"),
        ("tracker.config.MAX_RULES_BYTES", "wanted rules of at most 300 bytes as published, found"),
    ],
)
def test_a_catalogue_that_peers_would_not_take_is_refused(bound, told, monkeypatch):
    monkeypatch.setattr(bound, 300)

    [fault] = faults_of(GOOD)
    assert fault.startswith(f"models.toml:1: models: {told}")


def test_a_model_stands_in_one_of_the_two_files():
    [fault] = faults_of(GOOD, Rules(models={TEXT: ModelSection(price=5)}))

    assert "horde.toml has this model too" in fault


def test_without_a_file_there_is_no_catalogue(tmp_path):
    assert catalogue_of(tmp_path, Rules()) == NOTHING
    (tmp_path / "models.toml").write_text(GOOD, "utf-8")
    assert set(catalogue_of(tmp_path, Rules()).models) == {IMAGE, TEXT}


def bound(listing, **rules):
    announce = Announce(offers=(AN_OFFER, A_TEXT_OFFER))
    found, why = listing.bound(announce, Rules(catalogue=CatalogueSection(**rules)))
    return [offer.model for offer in found.offers], why


def test_offers_are_bound_by_the_catalogue_and_refused_by_name():
    listing = Listing(parse(GOOD, FILE, Rules()))

    assert bound(listing) == ([IMAGE, TEXT], [])
    assert bound(listing, listed_only=True) == ([IMAGE, TEXT], [])
    models, [why] = bound(listing, open_only=True)
    assert models == [IMAGE]
    assert why.startswith(f"{TEXT!r}: its licence LicenseRef-closed is none of catalogue.open_licences")
    models, why = bound(Listing(), listed_only=True)
    assert models == []
    assert len(why) == 2


def test_the_catalogues_of_earlier_rules_can_still_be_asked_for_but_not_for_ever():
    listing = Listing(parse(GOOD, FILE, Rules()))
    first = digest(to_json(listing.catalogue))
    for price in range(KEPT):
        assert listing.published(first) is not None
        listing.use(parse(GOOD.replace("price = 2000", f"price = {price}"), FILE, Rules()))
    assert listing.published(first) is None
    assert listing.published(digest(to_json(listing.catalogue))) == to_json(listing.catalogue)


def refused(listing, *models, work=None, **rules):
    """Why such a request is refused; nothing if it is taken in."""
    public = a_public_part(work or an_image_work(), models=models)
    try:
        listing.check_asked(public, Rules(catalogue=CatalogueSection(**rules)))
    except NotOffered as error:
        return error.text
    return ""


def test_a_request_that_nobody_may_serve_is_refused_with_the_models_that_there_are():
    listing = Listing(parse(GOOD, FILE, Rules()))

    assert refused(listing, "mine") == "", (
        "where the rules keep nobody to the catalogue somebody may come who serves it"
    )
    assert refused(listing, "mine", listed_only=True) == (
        "nobody may serve this in this horde: 'mine': it is not in the horde's catalogue (rule catalogue.listed_only):"
        f" see /models; of its catalogue's models for image there are: {IMAGE}"
    )
    assert refused(listing, "mine", IMAGE, listed_only=True) == "", "one that may be served is enough"
    assert refused(listing, TEXT) == (
        f"nobody may serve this in this horde: {TEXT!r}: the horde's catalogue has it as a model for text, and it is"
        f" offered for image; of its catalogue's models for image there are: {IMAGE}"
    )


def test_a_request_for_any_model_is_refused_only_where_there_can_be_none():
    listing, text = Listing(parse(GOOD, FILE, Rules())), a_text_work()

    assert refused(listing, listed_only=True) == ""
    assert refused(listing, work=text, listed_only=True) == ""
    assert refused(listing, work=text, open_only=True) == (
        "nobody may serve this in this horde: for text its catalogue has no model that may be served"
    )
    assert refused(Listing(), work=text) == ""
    assert "for image" in refused(Listing(), listed_only=True)


def test_of_many_models_only_some_are_named():
    many = "".join(f'[models.m{n:03}]\nkind = "image"\nlicence = "MIT"\nmillions = 1\n' for n in range(50))
    listing = Listing(parse(many, FILE, Rules()))

    said = refused(listing, *(f"x{n}" for n in range(32)), listed_only=True)
    assert said.endswith("m018, m019 and 30 more")
    assert ("'x2'" in said, "'x3'" in said) == (True, False)
