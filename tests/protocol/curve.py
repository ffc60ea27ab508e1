"""Curve edwards25519 by schoolbook arithmetic, slow and independent of libsodium: for making what libsodium refuses."""

from __future__ import annotations

import hashlib

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493

_D = -121665 * pow(121666, -1, PRIME) % PRIME
_ROOT_OF_MINUS_ONE = pow(2, (PRIME - 1) // 4, PRIME)

Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def x_of(y: int, sign: int) -> int | None:
    """The x of that sign bit that lies on the curve with y, if there is one (RFC 8032, 5.1.3)."""
    above, below = (y * y - 1) % PRIME, (_D * y * y + 1) % PRIME
    x = above * pow(below, 3, PRIME) * pow(above * pow(below, 7, PRIME), (PRIME - 5) // 8, PRIME) % PRIME
    if (below * x * x - above) % PRIME:
        x = x * _ROOT_OF_MINUS_ONE % PRIME
    if (below * x * x - above) % PRIME:
        return None
    return x if x & 1 == sign else -x % PRIME


def add(one: Point, other: Point) -> Point:
    """The sum of two points."""
    (x1, y1), (x2, y2) = one, other
    both = _D * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + x2 * y1) * pow(1 + both, -1, PRIME) % PRIME
    y = (y1 * y2 + x1 * x2) * pow(1 - both, -1, PRIME) % PRIME
    return x, y


def times(factor: int, point: Point) -> Point:
    """The point added to itself so often."""
    total = IDENTITY
    while factor:
        if factor & 1:
            total = add(total, point)
        point, factor = add(point, point), factor >> 1
    return total


def encode(point: Point) -> bytes:
    """The canonical 32 bytes of a point."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(raw: bytes) -> Point | None:
    """The point in 32 bytes, y reduced as a careless reader would, so that non-canonical forms are read too."""
    number = int.from_bytes(raw, "little")
    y = (number & ~(1 << 255)) % PRIME
    x = x_of(y, number >> 255)
    return None if x is None else (x, y)


def _base() -> Point:
    y = 4 * pow(5, -1, PRIME) % PRIME
    x = x_of(y, 0)
    assert x is not None
    return x, y


BASE = _base()


def small_order_points() -> list[Point]:
    """The eight points whose order divides 8, found by arithmetic: multiples of an order-8 part of some point."""
    for y in range(2, 100):
        x = x_of(y, 0)
        if x is None:
            continue
        part = times(ORDER, (x, y))
        if times(4, part) != IDENTITY:
            return [times(factor, part) for factor in range(8)]
    raise AssertionError("no point of order 8 found")


def small_order_encodings() -> list[bytes]:
    """Every 32 bytes that a careless reader takes for a point of small order: canonical, with a wrong sign, y + p."""
    ys = {y for _, y in small_order_points()}
    found = []
    for y in sorted(ys | {y + PRIME for y in ys if y + PRIME < 2**255}):
        found += [(y | sign << 255).to_bytes(32, "little") for sign in (0, 1)]
    return found


def non_canonical_encodings() -> list[bytes]:
    """Every 32 bytes whose y is not below 2^255-19, with either sign."""
    return [((PRIME + over) | sign << 255).to_bytes(32, "little") for over in range(19) for sign in (0, 1)]


def challenge_of(signature_point: bytes, key: bytes, message: bytes) -> int:
    """The number that binds a signature to key and message (RFC 8032: k)."""
    return int.from_bytes(hashlib.sha512(signature_point + key + message).digest(), "little") % ORDER


def careless_verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """The bare equation S*B = R + k*A, with no check of the key: what libsodium does besides its checks."""
    point, scalar = decode(key), int.from_bytes(signature[32:], "little")
    if point is None:
        return False
    k = challenge_of(signature[:32], key, message)
    x, y = times(k, point)
    return encode(add(times(scalar, BASE), (-x % PRIME, y))) == signature[:32]


def sign_with(scalar: int, nonce: int, message: bytes, *, key: bytes, twist: Point = IDENTITY) -> bytes:
    """A signature by a chosen secret scalar and nonce; `twist` is added to R (so that only a lax check takes it)."""
    signature_point = encode(add(times(nonce, BASE), twist))
    total = (nonce + challenge_of(signature_point, key, message) * scalar) % ORDER
    return signature_point + total.to_bytes(32, "little")
