"""The small picture model draws what its captions say, as measured by pixels."""

from pathlib import Path

import pytest
from PIL import Image

from peer import shapes
from peer.shapes import draw, score

MOST_BYTES = 8_000_000
FILES = {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}


@pytest.fixture(scope="module")
def pipeline():
    pytest.importorskip("torch")
    return score.load(shapes.folder())


@pytest.fixture(scope="module")
def pictures(pipeline):
    return score.generate(pipeline, score.fixed_orders())


def right(pictures, wanted):
    return score.count(zip(map(score.look, pictures), wanted, strict=True)).right["all"]


def test_the_scorer_is_right_about_what_the_drawing_code_drew():
    checked = score.drawn_check(1000)
    assert checked.pictures == 1000
    assert min(checked.right.values()) >= 990


def test_the_scorer_sees_nothing_in_a_plain_picture():
    plain = Image.new("RGB", (draw.SIDE, draw.SIDE), draw.BACKGROUNDS["grey"])
    seen = score.look(plain)
    assert (seen.shape, seen.colour, seen.size, seen.background) == (None, None, None, "grey")


def test_the_scorer_refuses_noise_as_a_shape():
    chance = draw.chance_of("noise")
    noise = Image.new("RGB", (draw.SIDE, draw.SIDE))
    noise.putdata([(chance.randrange(256), chance.randrange(256), chance.randrange(256)) for _ in range(draw.SIDE**2)])
    assert score.look(noise).shape is None


def test_the_scorer_refuses_a_picture_of_another_size():
    with pytest.raises(ValueError, match="wanted 32 pixels"):
        score.look(Image.new("RGB", (64, 64)))


def test_a_tenth_of_the_combinations_is_kept_out_of_training():
    everything, trained, kept_out = draw.combinations(), draw.training_combinations(), draw.held_out()
    assert len(kept_out) == len(everything) // 10
    assert kept_out.isdisjoint(trained)
    assert kept_out.union(trained) == set(everything)


@pytest.mark.slow
def test_the_held_out_combinations_are_in_none_of_the_training_pictures():
    train = pytest.importorskip("peer.shapes.train")
    pictures = train.Pictures(600, seed=0)
    assert set(pictures.shown) == set(draw.training_combinations())


def test_every_word_is_still_taught_although_some_combinations_are_not():
    trained = draw.training_combinations()
    for word in score.WORDS:
        assert {getattr(one, word) for one in trained} == {getattr(one, word) for one in draw.combinations()}


def test_the_weights_are_complete_and_small():
    folder = shapes.folder()
    assert FILES <= {path.name for path in folder.iterdir()}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= MOST_BYTES


def test_the_fixed_prompts_are_drawn_as_they_say(pictures):
    assert right(pictures, [order.wanted for order in score.fixed_orders()]) >= 20


def test_with_captions_shuffled_the_same_pictures_are_wrong(pictures):
    wanted = score.shuffled([order.wanted for order in score.fixed_orders()])
    assert right(pictures, wanted) <= 6


def test_the_same_seed_gives_the_same_bytes(pipeline):
    orders = score.fixed_orders()[:2]
    first, second = (score.generate(pipeline, orders, steps=4) for _ in range(2))
    assert [picture.tobytes() for picture in first] == [picture.tobytes() for picture in second]


def test_another_seed_gives_another_picture(pipeline):
    wanted = score.fixed_orders()[0].wanted
    first, second = score.generate(pipeline, [score.Order(wanted, 1), score.Order(wanted, 2)], steps=4)
    assert first.tobytes() != second.tobytes()


def test_the_grid_holds_every_picture():
    orders = score.fixed_orders()
    drawn = [draw.draw(order.wanted, draw.chance_of("grid")) for order in orders]
    assert score.grid(orders, drawn).size == (6 * 136 + 8, 4 * 164 + 8)


def test_the_report_has_every_group_and_word(tmp_path: Path):
    orders = score.fixed_orders()
    drawn = [draw.draw(order.wanted, draw.chance_of(order.wanted.caption)) for order in orders]
    scores = score.score(orders, drawn, "drawn", 0, 0.0)
    assert scores.all.right["all"] == len(orders)
    assert scores.trained.pictures + scores.held_out.pictures == len(orders)
    text = score.as_text(scores)
    assert all(word in text for word in ("kept out of training", "captions shuffled", *score.WORDS))
