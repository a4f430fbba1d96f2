"""A collection in full, as collection.getCollection answers it."""

from ._account import Account
from ._answers import Data
from ._collections import Collection
from ._placeholders import ITEM_HASH, ITEMS, THUMB, THUMB_URL


def described(account: Account, collection: Collection, now: float) -> Data:
    """Describe a collection, its picture and how far its items are."""
    choices = account.choices
    cover = THUMB_URL.format(
        account=account.id, collection=collection.hash, item=collection.items[0].hash
    )
    items = [
        {ITEM_HASH: item.hash, choices.state_field: choices.states[item.state(now)]}
        for item in collection.items
    ]
    return {**collection.listed(), THUMB: cover, ITEMS: items}
