"""Numbers, durations and foreign text as people like to read them."""

from __future__ import annotations


def printable(text: str) -> str:
    """Make what others wrote fit for one line of a terminal, which obeys control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def counted_of(count: int, total: int | None, thing: str) -> str:
    """Write how many of all, whose number may not be known yet."""
    return counted(count, thing) if total is None else f"{count:,} of {counted(total, thing)}"


def size(count: float) -> str:
    """Write a number of bytes as the vendor counts them: a kB is 1,000."""
    for unit in ("B", "kB", "MB"):
        if count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def duration(seconds: float | None) -> str:
    """Write *seconds* with the two largest units that they fill."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24:02} h"


def stopwatch(seconds: float) -> str:
    """Write how long something took: short times to the tenth."""
    return f"{seconds:.1f} s" if seconds < 59.95 else duration(seconds)
