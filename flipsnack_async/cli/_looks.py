"""What the bar shows of each thing that takes long: a harvest, an upload, a conversion."""

from __future__ import annotations

from pathlib import Path

import anyio

from flipsnack_async import (
    Collection,
    ExportProgress,
    HarvestProgress,
    QuotaStatistics,
    SeriesProgress,
)

from ._progress_bar import Look
from ._readable import counted, duration, printable, size


def look_of_harvest(progress: HarvestProgress) -> Look:
    """Show how far a harvest is, what it has cost, its pace, and what is left."""
    parts = [*_so_far(progress), f"{progress.calls_per_minute:.1f}/min"]
    if progress.calls_left is not None:
        parts.append(_left(progress.calls_left, progress.seconds_left))
    return Look("  ".join(parts), progress.done, progress.total)


def look_of_series(progress: SeriesProgress) -> Look:
    """Show the same of a series, and at most how much is left; the bar is that of its calls."""
    parts = [*_so_far(progress), f"{progress.calls_per_minute:.1f}/min"]
    if progress.most_calls_left is None:
        return Look("  ".join(parts))
    parts.append(f"at most {_left(progress.most_calls_left, progress.most_seconds_left)}")
    return Look("  ".join(parts), progress.calls, progress.calls + progress.most_calls_left)


def look_of_exports(progress: ExportProgress, quota: QuotaStatistics) -> Look:
    """Show how far an export is, how much was fetched, and what may be sent at once."""
    free = " ".join(f"{tokens}/{rate.limit}" for rate, tokens in quota.free.items())
    parts = [*_so_far(progress), size(progress.bytes), f"free {free}"]
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return Look("  ".join(parts), progress.done, progress.total)


def _so_far(progress: HarvestProgress | SeriesProgress | ExportProgress) -> list[str]:
    total = "?" if progress.total is None else f"{progress.total:,}"
    done = f"{progress.done:,}/{total}"
    return [done, f"{progress.failed:,} failed", counted(progress.calls, "call")]


def _left(calls: int, seconds: float | None) -> str:
    return f"{counted(calls, 'call')}, {duration(seconds)} left"


class UploadMeter:
    """
    Know how much of a document has gone, and how fast.

    *total* is None where the vendor fetches the document from an address.
    """

    def __init__(self, source: str) -> None:
        self.total = _size_of(source)
        self.sent = 0
        self._first = (0, 0.0)  # from where and when on the speed is measured

    def moved(self, sent: int) -> None:
        """Be told how many bytes are gone; fewer than before are those of another sending."""
        if not 0 < self.sent < sent:
            self._first = (sent, anyio.current_time())
        self.sent = sent

    def look(self) -> Look:
        if self.total is None or self.sent >= self.total:
            words = "waiting for the answer"
            if self.total:
                words = f"{size(self.total)} sent  {words}"
            return Look(words, self.sent, self.total)
        parts = [f"{size(self.sent)} of {size(self.total)}"]
        first_sent, first_time = self._first
        seconds = anyio.current_time() - first_time
        if self.sent > first_sent and seconds > 0:
            speed = (self.sent - first_sent) / seconds
            left = duration((self.total - self.sent) / speed)
            parts += [f"{size(speed)}/s", f"{left} left"]
        return Look("  ".join(parts), self.sent, self.total)


class DownloadMeter:
    """Know how much of a package is here; *total* is None until its host says."""

    def __init__(self) -> None:
        self.received = 0
        self.total: int | None = None
        self._began = anyio.current_time()

    def moved(self, received: int, total: int | None) -> None:
        self.received, self.total = received, total

    def look(self) -> Look:
        if not self.received:
            waited = duration(anyio.current_time() - self._began)
            return Look(f"waiting for the package  {waited}")
        of_all = "" if self.total is None else f" of {size(self.total)}"
        return Look(f"{size(self.received)}{of_all}", self.received, self.total)


class ConversionWatch:
    """Know how long a conversion has been awaited, and the newest that is known of it."""

    def __init__(self, collection: Collection) -> None:
        self.newest = collection
        self._began = anyio.current_time()

    def polled(self, collection: Collection) -> None:
        self.newest = collection

    def look(self) -> Look:
        state = printable(self.newest.state or "converting")
        return Look(f"{state}  {duration(anyio.current_time() - self._began)}")


def _size_of(source: str) -> int | None:
    try:
        return Path(source).stat().st_size
    except (OSError, ValueError):
        return None  # an address, or what the library will refuse
