"""The actions the sandbox offers, each a function of the account and the arrival."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date

import attrs

from ._account import Account
from ._answers import Data
from ._arrivals import Arrival
from ._codes import BAD_REQUEST, RefusedError
from ._collections import list_page


@attrs.frozen
class Action:
    """What an action must be told, and its answer to that."""

    required: tuple[str, ...]
    answer: Callable[[Account, Arrival], Data]


def _user_stats(account: Account, arrival: Arrival) -> Data:
    total: Counter[str] = Counter()
    for collection in account.collections.values():
        total.update(collection.readership.totals(None, None))
    counters = ("impressions", "views", "time_spent", "downloads")
    return {**{counter: total[counter] for counter in counters}, "api_uploads_left": 1000}


def _collection_stats(account: Account, arrival: Arrival) -> Data:
    readership = account.collection(arrival.params["collectionHash"]).readership
    start, end = _date(arrival.params, "startDate"), _date(arrival.params, "endDate")
    stats: Data = {**readership.totals(start, end)}
    if arrival.params.get("includePageStats") == "true":
        stats["pages"] = readership.pages(start, end)
    return stats


def _collection_list(account: Account, arrival: Arrival) -> Data:
    return list_page(account.collections.values(), arrival.params, page_size=account.page_size)


def _download_html(account: Account, arrival: Arrival) -> Data:
    collection = account.collection(arrival.params["collectionHash"])
    return account.exports.ask(collection, origin=arrival.origin, now=arrival.at)


def _date(params: Mapping[str, str], name: str) -> date | None:
    text = params.get(name)
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise RefusedError(BAD_REQUEST) from None
    # fromisoformat() reads week dates and dates without hyphens as well.
    if day.isoformat() != text:
        raise RefusedError(BAD_REQUEST)
    return day


ACTIONS: Mapping[str, Action] = {
    "user.getStats": Action((), _user_stats),
    "collection.getStats": Action(("collectionHash",), _collection_stats),
    "collection.getList": Action((), _collection_list),
    "collection.downloadHTML": Action(("collectionHash",), _download_html),
}
