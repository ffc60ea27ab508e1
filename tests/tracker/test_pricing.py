"""Prices by the formulas, and by a plug-in, of which an example is installed and used as an operator would."""

import logging
import sys

import pytest

from protocol import prices
from protocol.errors import NotOffered, OverMaxPrice
from protocol.prices import used_price
from protocol.rules import ModelSection, PricesSection, Rules
from protocol.work import ImageWork, TextWork
from tests.support.builders import a_public_part, a_text_work, an_image_work, but
from tests.support.price_plugin import install
from tracker import pricing
from tracker.config import ConfigError, parse
from tracker.limits import affordable

FLAT = Rules(prices=PricesSection(plugin="flat"), models={"dear": ModelSection(price=2_000)})
PICTURE, TEXT = an_image_work(), a_text_work()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def installed(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    pricing.plugin.cache_clear()
    yield place
    pricing.plugin.cache_clear()
    sys.modules.pop("flat_prices", None)


@pytest.fixture
def made(monkeypatch):
    """A plug-in that does what the test says."""

    def make(pricer):
        monkeypatch.setattr(pricing, "plugin", lambda name: pricer)

    return make


def test_without_a_plugin_the_formulas_hold():
    assert pricing.price(Rules(), PICTURE, "sdxl") == prices.price(Rules(), PICTURE, "sdxl")


def test_the_example_is_found_by_its_entry_point_and_prices_jobs(installed):
    assert pricing.price(FLAT, PICTURE, "any") == 9_000
    assert pricing.price(FLAT, but(PICTURE, width=2048), "dear") == 18_000
    assert pricing.price(FLAT, TEXT, "any") == 2_000
    assert affordable(but(a_public_part(PICTURE, models=("any", "dear")), max_price=9_000), FLAT, ()) == ("any",)


def test_what_the_plugin_has_no_price_for_is_not_offered(installed):
    with pytest.raises(NotOffered, match="no price for such a job"):
        pricing.price(FLAT, but(PICTURE, extras=("upscale",)), "any")


def test_by_use_its_prices_fall_in_proportion():
    assert used_price(FLAT, ImageWork(steps=30), "any", 10, 9_000) == 3_000
    assert used_price(FLAT, TextWork(max_tokens=100, context_tokens=512), "any", 25, 2_000) == 500
    assert used_price(FLAT, TextWork(max_tokens=100, context_tokens=512), "any", 250, 2_000) == 2_000


def test_a_plugin_that_is_not_installed_is_a_mistake_in_the_rules_with_its_line(tmp_path):
    with pytest.raises(ConfigError) as refused:
        parse('[prices]\nplugin = "missing"\n', tmp_path / "horde.toml")
    [fault] = refused.value.faults
    assert fault.startswith(f"{tmp_path / 'horde.toml'}:2: prices.plugin: no entry point 'missing'")
    assert "installed: none" in fault


def test_rules_may_name_a_plugin_that_is_installed(installed, tmp_path):
    assert parse('[prices]\nplugin = "flat"\n', tmp_path / "horde.toml").rules.prices.plugin == "flat"


def test_a_plugin_that_cannot_be_loaded_is_named(installed, monkeypatch):
    module = installed / "flat_prices.py"
    text = module.read_text()
    sys.modules.pop("flat_prices", None)
    module.write_text("raise RuntimeError('broken')")
    try:
        with pytest.raises(pricing.BadPlugin, match=r"'flat' .flat_prices:price. cannot be loaded: RuntimeError"):
            pricing.plugin("flat")
    finally:
        module.write_text(text)


@pytest.mark.parametrize("found", [-1, 1.5, "9", True, 10**12 + 1])
def test_what_is_no_price_is_logged_and_not_offered(made, caplog, found):
    made(lambda rules, work, model: found)
    with caplog.at_level(logging.ERROR), pytest.raises(NotOffered):
        pricing.price(FLAT, PICTURE, "any")
    assert "wanted thousandths" in caplog.text


def test_a_plugin_that_fails_is_logged_and_ends_nothing(made, caplog):
    def fail(rules, work, model):
        raise ZeroDivisionError

    made(fail)
    with caplog.at_level(logging.ERROR), pytest.raises(NotOffered):
        pricing.price(FLAT, PICTURE, "any")
    assert "the price plug-in 'flat' failed" in caplog.text


def test_what_fails_for_everybody_who_asks_fills_no_log(made, caplog):
    def fail(rules, work, model):
        raise KeyError(model)

    made(fail)
    with caplog.at_level(logging.ERROR):
        for number in range(20):
            with pytest.raises(NotOffered):
                pricing.price(FLAT, PICTURE, f"made up {number}")
    assert len(caplog.records) == 1
    assert "made up 0" in caplog.text


def test_a_model_without_a_price_keeps_nobody_from_the_others(made):
    """Or whoever serves one that the operator has not heard of would close the horde to all who name none."""
    made(lambda rules, work, model: None if model == "unheard-of" else 5_000)
    anything = a_public_part(PICTURE, models=())
    assert affordable(anything, FLAT, ("known", "unheard-of")) == ("known",)
    assert affordable(but(anything, models=("unheard-of", "known")), FLAT, ()) == ("known",)
    with pytest.raises(OverMaxPrice, match="the least that this costs here is 5 kudos"):
        affordable(but(anything, max_price=10), FLAT, ("known", "unheard-of"))
    with pytest.raises(NotOffered, match="no price"):
        affordable(anything, FLAT, ("unheard-of",))
    with pytest.raises(NotOffered, match="no price"):
        affordable(but(anything, models=("unheard-of",)), FLAT, ("known",))
