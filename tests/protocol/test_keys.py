"""Keys: what is refused and why it has to be, the text form, signatures as every auditor judges them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadKey, BadSignature
from protocol.keys import SigningKey, check_key, parse_key, show_key, verify
from tests.protocol import curve
from tests.support.builders import a_key

MESSAGES = [b"one", b"another", b""]

seeds = st.binary(min_size=32, max_size=32)


def test_there_are_eight_points_of_small_order() -> None:
    points = curve.small_order_points()

    assert len(set(points)) == 8
    assert all(curve.times(8, point) == curve.IDENTITY for point in points)


def test_the_slow_curve_agrees_with_libsodium() -> None:
    key = a_key()
    signature = key.sign(b"message")

    assert curve.careless_verify(key.public, b"message", signature)
    assert not curve.careless_verify(key.public, b"another", signature)


@pytest.mark.parametrize("key", curve.small_order_encodings(), ids=bytes.hex)
def test_a_key_of_small_order_is_refused(key: bytes) -> None:
    with pytest.raises(BadKey):
        check_key(key)
    with pytest.raises(BadKey):
        verify(key, b"message", bytes(64))
    with pytest.raises(BadKey):
        parse_key(show_key(key))


@pytest.mark.parametrize("key", curve.non_canonical_encodings(), ids=bytes.hex)
def test_a_key_in_non_canonical_form_is_refused(key: bytes) -> None:
    with pytest.raises(BadKey):
        check_key(key)


def test_without_the_check_one_signature_of_a_small_order_key_would_fit_every_message() -> None:
    signature = curve.encode(curve.BASE) + (1).to_bytes(32, "little")
    identity = curve.encode(curve.IDENTITY)

    assert [curve.careless_verify(identity, message, signature) for message in MESSAGES] == [True] * len(MESSAGES)
    for message in MESSAGES:
        with pytest.raises(BadKey):
            verify(identity, message, signature)


def test_without_the_check_a_key_of_order_eight_would_fit_one_message_in_eight() -> None:
    signature = curve.encode(curve.BASE) + (1).to_bytes(32, "little")
    keys = [curve.encode(point) for point in curve.small_order_points() if curve.times(4, point) != curve.IDENTITY]
    messages = [bytes([number]) for number in range(64)]

    fitting = [message for message in messages if curve.careless_verify(keys[0], message, signature)]

    assert 0 < len(fitting) < len(messages)


def test_a_signature_with_a_point_of_small_order_added_is_refused() -> None:
    """A check that multiplies by eight would take it: two auditors would disagree, so the standard says which."""
    secret = 0x1234567890ABCDEF
    key = curve.encode(curve.times(secret, curve.BASE))
    verify(key, b"message", curve.sign_with(secret, 42, b"message", key=key))

    for point in curve.small_order_points():
        if point != curve.IDENTITY:
            signature = curve.sign_with(secret, 42, b"message", key=key, twist=point)
            with pytest.raises(BadSignature):
                verify(key, b"message", signature)


def test_a_signature_whose_second_half_is_not_reduced_is_refused() -> None:
    signature = a_key().sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + curve.ORDER
    twin = signature[:32] + scalar.to_bytes(32, "little")

    assert curve.careless_verify(a_key().public, b"message", twin)
    with pytest.raises(BadSignature):
        verify(a_key().public, b"message", twin)


@pytest.mark.parametrize("twist", curve.small_order_points(), ids=lambda point: curve.encode(point).hex())
def test_a_signature_whose_first_half_is_of_small_order_is_refused(twist: curve.Point) -> None:
    secret = 0x1234567890ABCDEF
    key = curve.encode(curve.times(secret, curve.BASE))

    with pytest.raises(BadSignature):
        verify(key, b"message", curve.sign_with(secret, 0, b"message", key=key, twist=twist))


def test_a_key_that_is_no_point_of_the_curve_signs_nothing() -> None:
    key = next(number.to_bytes(32, "little") for number in range(2, 100) if curve.x_of(number, 0) is None)

    check_key(key)
    with pytest.raises(BadSignature):
        verify(key, b"message", a_key().sign(b"message"))


@given(seed=seeds, message=st.binary(max_size=200))
def test_what_a_key_signs_holds_for_it_and_these_bytes_only(seed: bytes, message: bytes) -> None:
    key = SigningKey(seed)
    signature = key.sign(message)

    verify(key.public, message, signature)
    for wrong in ((a_key(9).public, message), (key.public, message + b"x")):
        with pytest.raises(BadSignature):
            verify(*wrong, signature)


@given(seed=seeds, bit=st.integers(0, 511))
def test_a_signature_with_one_bit_changed_is_refused(seed: bytes, bit: int) -> None:
    key = SigningKey(seed)
    signature = bytearray(key.sign(b"message"))
    signature[bit // 8] ^= 1 << bit % 8

    with pytest.raises(BadSignature):
        verify(key.public, b"message", bytes(signature))


@pytest.mark.parametrize("size", [0, 31, 33, 63, 65])
def test_keys_and_signatures_of_other_lengths_are_refused(size: int) -> None:
    if size < 63:
        with pytest.raises(BadKey):
            check_key(bytes(size))
    with pytest.raises(BadSignature):
        verify(a_key().public, b"message", bytes(size))


@given(seed=seeds)
def test_the_shown_form_is_read_back(seed: bytes) -> None:
    public = SigningKey(seed).public

    assert len(show_key(public)) == 52
    assert parse_key(show_key(public)) == public


SHOWN = show_key(a_key().public)


@pytest.mark.parametrize(
    "shown",
    [
        "",
        SHOWN[:-1],
        SHOWN + "a",
        SHOWN.upper(),
        SHOWN + "====",
        " " + SHOWN[1:],
        SHOWN[:-1] + "0",
        SHOWN[:-1] + "é",
        SHOWN + "\n",
    ],
)
def test_any_other_text_is_no_key(shown: str) -> None:
    with pytest.raises(BadKey):
        parse_key(shown)


def test_stray_bits_in_the_last_character_are_refused() -> None:
    """52 characters hold 260 bits; if the 4 beyond the key were free, one key had sixteen names."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    others = [SHOWN[:-1] + character for character in alphabet if character != SHOWN[-1]]

    taken = []
    for other in others:
        try:
            taken.append(parse_key(other))
        except BadKey:
            continue
    # The one bit that belongs to the key is its last: the sign of x.
    assert [int.from_bytes(key, "little") ^ int.from_bytes(a_key().public, "little") for key in taken] == [1 << 248]


def test_a_private_key_does_not_show_its_seed() -> None:
    key = a_key()

    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in repr(key)
    assert repr(key) == f"SigningKey({SHOWN})"


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().public != SigningKey.generate().public
