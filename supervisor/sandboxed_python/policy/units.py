"""Sizes, durations and counts in words: ``512M``, ``1h30m``, ``32``.

Runs in: supervisor. Loaded only when a limit is given.
"""

from __future__ import annotations

# Powers of 1024, as in docker's --memory and systemd's MemoryMax=: K and Ki are the same.
SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# Seconds; without a unit too, as in timeout(1).
DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# A limit above these is none, and would not fit the kernel's numbers.
MOST = {"size": float(1 << 62), "duration": 1e9, "grace": 1e9, "count": float(1 << 30)}
WANTED = {
    "size": "a size above 0: a number with K, M, G or T (powers of 1024, also Ki, Mi, Gi, Ti) or, in bytes, without",
    "duration": "a duration above 0: numbers with ms, s, m, h or d, e.g. 90s or 1h30m, or, in seconds, without",
    "grace": "a duration: numbers with ms, s, m, h or d, e.g. 10s, or, in seconds, without",
    "count": "a whole number above 0",
}


def parse(kind: str, text: str) -> float:
    """Return what a text means.

    Args:
        kind: ``"size"`` (in bytes), ``"duration"`` (in seconds), ``"grace"`` (the same, also 0) or ``"count"``.
        text: as given.

    Returns:
        An int, but for durations.

    Raises:
        ValueError: it isn't one; the message says what is wanted.
    """
    value = _READ[kind](text)
    if value is None or value > MOST[kind] or not (value > 0 or (kind == "grace" and value == 0)):
        message = f"{text!r} is not {WANTED[kind]}"
        raise ValueError(message)
    return value


def _size(text: str) -> int | None:
    number, unit = _split(text.lower())
    if len(unit) == 2 and unit[1] == "i":
        unit = unit[0]
    value = _number(number)
    return None if value is None or unit not in SIZES else int(value * SIZES[unit])


def _duration(text: str) -> float | None:
    total = 0.0
    rest = text.lower()
    last = float("inf")
    while True:
        number, unit = _split(rest)
        rest = unit.lstrip(_LETTERS)
        unit = unit[: len(unit) - len(rest)]
        value = _number(number)
        # From large to small, each unit once; a number without one stands alone.
        if value is None or unit not in DURATIONS or DURATIONS[unit] >= last or (not unit and number != text):
            return None
        total += value * DURATIONS[unit]
        last = DURATIONS[unit]
        if not rest:
            return total


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() else None


_READ = {"size": _size, "duration": _duration, "grace": _duration, "count": _count}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONGEST = 30


def _split(text: str) -> tuple[str, str]:
    """Split off the number at the beginning."""
    unit = text.lstrip("0123456789.")
    return text[: len(text) - len(unit)], unit


def _number(text: str) -> float | None:
    """Return a number without sign or exponent: ``1``, ``1.5``, ``.5``."""
    if len(text) > _LONGEST or not text.isascii() or not text.replace(".", "", 1).isdigit():
        return None
    return float(text)


def words(kind: str, value: float) -> str:
    """Return a value as short as ``parse`` takes it; sizes and durations that are not round are rounded."""
    if kind == "count":
        return str(int(value))
    if kind == "size":
        unit = next((unit for unit in ("t", "g", "m", "k") if value >= SIZES[unit]), "")
        return f"{_short(value / SIZES[unit])}{unit.upper()}"
    if 0 < value < 1:
        return f"{_short(value * 1000)}ms"
    unit = next((unit for unit in ("d", "h", "m") if value >= DURATIONS[unit] and not value % DURATIONS[unit]), "s")
    return f"{_short(value / DURATIONS[unit])}{unit}"


def _short(value: float) -> str:
    """Return a number with at most one digit behind the point, and that only where it isn't 0."""
    return f"{value:.1f}".removesuffix(".0")
