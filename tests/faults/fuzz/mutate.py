"""Seeded damage to a file: what disks, networks, broken programs and attackers do to it."""

from functools import lru_cache

import numpy as np

# Sizes and counts that break arithmetic: zero, one, all ones, signs, large but not largest.
_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_NUMBERS += (0x10000000, 0x40000000, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 48000, 192000, 1_000_000)
_HEADER_BYTES = 256
_LARGEST = 1 << 17


def mutate(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """A damaged copy of `data`, up to 128 kB; `others` are files to take parts from."""
    out = bytearray(data)
    for _ in range(1 + int(rng.geometric(0.4))):
        if not out:
            break
        _OPERATIONS[int(rng.integers(len(_OPERATIONS)))](out, others, rng)
    del out[_LARGEST:]
    if rng.random() < 0.7:
        _correct_ogg_checksums(out)  # else a decoder sees little of the damage
    return bytes(out)


def _correct_ogg_checksums(out: bytearray) -> None:
    at = out.find(b"OggS")
    while at >= 0:
        following = out.find(b"OggS", at + 4)
        end = following if following >= 0 else len(out)
        if end - at >= 27:
            out[at + 22 : at + 26] = bytes(4)
            out[at + 22 : at + 26] = _ogg_checksum(bytes(out[at:end])).to_bytes(4, "little")
        at = following


def _ogg_checksum(page: bytes) -> int:
    table, checksum = _checksum_table(), 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ table[(checksum >> 24) ^ byte]
    return checksum


@lru_cache(maxsize=1)
def _checksum_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return table


def _place(out: bytearray, rng: np.random.Generator) -> int:
    """Headers decide most; half of all damage goes there."""
    end = min(len(out), _HEADER_BYTES) if rng.random() < 0.5 else len(out)
    return int(rng.integers(end))


def _span(out: bytearray, rng: np.random.Generator) -> slice:
    start = _place(out, rng)
    return slice(start, start + int(2 ** rng.uniform(0, 12)))


def _flip_bits(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 9))):
        out[_place(out, rng)] ^= 1 << int(rng.integers(8))


def _set_bytes(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 9))):
        out[_place(out, rng)] = int(rng.integers(256))


def _set_number(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    size, order = int(rng.choice([1, 2, 4, 8])), ("little", "big")[int(rng.integers(2))]
    number = _NUMBERS[int(rng.integers(len(_NUMBERS)))] % (1 << (8 * size))
    start = _place(out, rng)
    if rng.random() < 0.7:
        start -= start % min(size, 4)  # most fields are aligned
    out[start : start + size] = number.to_bytes(size, order)  # type: ignore[arg-type]


def _nudge_number(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    """A count that is off by a little."""
    at = _place(out, rng)
    out[at] = (out[at] + int(rng.integers(-4, 5))) % 256


def _delete(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    del out[_span(out, rng)]


def _zero(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    span = _span(out, rng)
    out[span] = bytes(len(out[span]))


def _noise(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    span = _span(out, rng)
    out[span] = rng.bytes(len(out[span]))


def _repeat(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    part = bytes(out[_span(out, rng)])
    at = _place(out, rng)
    out[at:at] = part * int(rng.integers(1, 4))


def _move(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    span = _span(out, rng)
    part = bytes(out[span])
    del out[span]
    at = int(rng.integers(len(out) + 1))
    out[at:at] = part


def _insert(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    at = _place(out, rng)
    out[at:at] = rng.bytes(int(2 ** rng.uniform(0, 10)))


def _truncate(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    del out[_place(out, rng) + 1 :]


def _splice(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    """Begin as one file, go on as another."""
    other = others[int(rng.integers(len(others)))]
    out[_place(out, rng) :] = other[int(rng.integers(len(other))) :]


def _append(out: bytearray, others: list[bytes], rng: np.random.Generator) -> None:
    out += others[int(rng.integers(len(others)))]


_OPERATIONS = (
    *(_flip_bits, _set_bytes, _set_number, _set_number, _nudge_number, _delete, _zero),
    *(_noise, _repeat, _move, _insert, _truncate, _splice, _append),
)
