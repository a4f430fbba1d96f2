"""
The methods that the vendor's documentation no longer lists.

Little of their pages could be read. He says which parameters they must have,
that flipbook.delete answers nothing, and that the two which take a picture away
answer as collection.getCollection does; the rest was chosen here.
"""

from collections.abc import Mapping

from ._account import Account
from ._actions import Action
from ._answers import Data
from ._arrivals import Arrival
from ._codes import FORBIDDEN, NOT_DELETABLE, RefusedError
from ._descriptions import described
from ._uploads import IMAGES, book_kinds, received


def _add_flipbook(account: Account, arrival: Arrival) -> Data:
    collection = account.collection(arrival.params["collectionHash"])
    received(arrival, account.choices, book_kinds(account.choices))
    collection.items.append(account.convert(arrival.at))
    return described(account, collection, arrival.at)


def _delete_flipbook(account: Account, arrival: Arrival) -> None:
    collection = account.collection(arrival.params["collectionHash"])
    kept = [item for item in collection.items if item.hash != arrival.params["flipbookHash"]]
    if len(kept) == len(collection.items):
        raise RefusedError(FORBIDDEN)
    if not kept:
        raise RefusedError(NOT_DELETABLE)
    collection.items = kept


def _set_picture(account: Account, arrival: Arrival) -> Data:
    collection = account.collection(arrival.params["collectionHash"])
    received(arrival, account.choices, IMAGES)
    return described(account, collection, arrival.at)


def _delete_picture(account: Account, arrival: Arrival) -> Data:
    collection = account.collection(arrival.params["collectionHash"])
    return described(account, collection, arrival.at)


_SET = Action(("collectionHash",), _set_picture, is_upload=True)
_DELETE = Action(("collectionHash",), _delete_picture)

DEPRECATED_ACTIONS: Mapping[str, Action] = {
    "flipbook.add": Action(("collectionHash",), _add_flipbook, is_upload=True),
    "flipbook.delete": Action(("collectionHash", "flipbookHash"), _delete_flipbook),
    "collection.setLogo": _SET,
    "collection.deleteLogo": _DELETE,
    "collection.setBackgroundImage": _SET,
    "collection.deleteBackgroundImage": _DELETE,
}
