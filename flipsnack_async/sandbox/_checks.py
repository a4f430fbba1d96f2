"""The questions a call must pass, in the order in which the sandbox asks them."""

import hmac
from collections.abc import Iterable, Mapping

from ._account import Account
from ._actions import Action
from ._answers import Data
from ._arrivals import Arrival
from ._codes import (
    BAD_REQUEST,
    INVALID_ACTION,
    INVALID_CREDENTIALS,
    INVALID_SIGNATURE,
    MISSING_PARAMETER,
    RefusedError,
)
from ._rates import RateGate
from ._signature import is_signed


def carry_out(
    arrival: Arrival,
    account: Account,
    gate: RateGate,
    actions: Mapping[str, Action],
    *,
    strict: bool,
) -> Data | None:
    """
    Do what the call asks, or refuse it.

    The vendor's order is not documented. It matters to callers: a call counts
    towards the rates as soon as its key is known, whatever else is wrong with it.
    """
    params = arrival.params
    # Whatever a torn form lacks, it might have held.
    if not arrival.is_readable:
        raise RefusedError(BAD_REQUEST)
    _require(arrival, ("apiKey", "signature", "action"))
    if not hmac.compare_digest(params["apiKey"].encode(), account.key.encode()):
        raise RefusedError(INVALID_CREDENTIALS)
    gate.admit(arrival.at)
    if arrival.action not in actions:
        raise RefusedError(INVALID_ACTION)
    action = actions[arrival.action]
    if arrival.repeats_a_name or not _is_by_the_right_verb(arrival, action, strict=strict):
        raise RefusedError(BAD_REQUEST)
    if not is_signed(params, account.secret):
        raise RefusedError(INVALID_SIGNATURE)
    _require(arrival, action.required)
    if action.is_upload and arrival.document is None:
        _require(arrival, ("fileUrl",))
    return action.answer(account, arrival)


def _is_by_the_right_verb(arrival: Arrival, action: Action, *, strict: bool) -> bool:
    if action.is_upload:
        return arrival.method == "POST"
    return arrival.method == "GET" or not strict


def _require(arrival: Arrival, names: Iterable[str]) -> None:
    if any(name not in arrival.params for name in names):
        raise RefusedError(MISSING_PARAMETER)
