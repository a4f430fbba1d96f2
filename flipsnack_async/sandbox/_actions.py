"""The actions the sandbox offers, each a function of the account and the arrival."""

from collections import Counter
from collections.abc import Callable, Mapping

import attrs

from ._account import Account
from ._answers import Data
from ._arrivals import Arrival
from ._descriptions import described
from ._embeds import embed_code
from ._listing import list_page
from ._uploads import create
from ._values import day


@attrs.frozen
class Action:
    """What an action must be told, its answer to that, and whether it takes a document."""

    required: tuple[str, ...]
    answer: Callable[[Account, Arrival], Data | None]
    is_upload: bool = False


def _user_stats(account: Account, arrival: Arrival) -> Data:
    legacy = account.choices.legacy_counters
    total: Counter[str] = Counter()
    for collection in account.collections.values():
        total.update(collection.readership.totals(None, None, legacy=legacy))
    counters = ["impressions", "views", "time_spent", "downloads"]
    if legacy:
        counters.append("shares")
    return {
        **{counter: total[counter] for counter in counters},
        "api_uploads_left": account.uploads_left,
    }


def _collection_stats(account: Account, arrival: Arrival) -> Data:
    readership = account.collection(arrival.params["collectionHash"]).readership
    start, end = day(arrival.params, "startDate"), day(arrival.params, "endDate")
    legacy = account.choices.legacy_counters
    stats: Data = {**readership.totals(start, end, legacy=legacy)}
    if arrival.params.get("includePageStats") == "true":
        stats["pages"] = readership.pages(start, end)
    return stats


def _collection_list(account: Account, arrival: Arrival) -> Data:
    page_size = account.choices.page_size
    return list_page(account.collections.values(), arrival.params, page_size=page_size)


def _download_html(account: Account, arrival: Arrival) -> Data:
    collection = account.converted(arrival.params["collectionHash"], arrival.at)
    return account.exports.ask(collection, origin=arrival.origin, now=arrival.at)


def _create(account: Account, arrival: Arrival) -> Data:
    return described(account, create(account, arrival), arrival.at)


def _get_collection(account: Account, arrival: Arrival) -> Data:
    collection = account.collection(arrival.params["collectionHash"])
    return described(account, collection, arrival.at)


def _update(account: Account, arrival: Arrival) -> Data:
    collection = account.converted(arrival.params["collectionHash"], arrival.at)
    was_editable = collection.settings.status == "editable"
    collection.settings = collection.settings.changed(arrival.params)
    if was_editable and collection.settings.status != "editable":
        account.publish(collection)
    return described(account, collection, arrival.at)


def _delete_collection(account: Account, arrival: Arrival) -> None:
    account.remove(account.collection(arrival.params["collectionHash"]))


def _get_embed(account: Account, arrival: Arrival) -> Data:
    collection = account.collection(arrival.params["collectionHash"])
    return {"embedCode": embed_code(account.id, collection, arrival.params)}


def _lead_form_sample(account: Account, arrival: Arrival) -> Data:
    return dict(account.choices.lead_sample)


_ONE = ("collectionHash",)

ACTIONS: Mapping[str, Action] = {
    "user.getStats": Action((), _user_stats),
    "collection.create": Action((), _create, is_upload=True),
    "collection.getCollection": Action(_ONE, _get_collection),
    "collection.update": Action(_ONE, _update),
    "collection.deleteCollection": Action(_ONE, _delete_collection),
    "collection.getEmbed": Action(_ONE, _get_embed),
    "collection.getStats": Action(_ONE, _collection_stats),
    "collection.getList": Action((), _collection_list),
    "collection.downloadHTML": Action(_ONE, _download_html),
    "zapier.getZapierLeadFormSample": Action((), _lead_form_sample),
}
