"""Numbers that a sandbox is set up with."""


def check_at_least(least: float, **numbers: float | None) -> None:
    """Refuse a number that is less, naming its argument; None is no number."""
    for name, number in numbers.items():
        if number is not None and not number >= least:
            raise ValueError(f"{name}={number}: give at least {least}.")


def check_http_status(**statuses: int | None) -> None:
    """Refuse what no HTTP answer can have, naming its argument; None is no status."""
    for name, status in statuses.items():
        if status is not None and not 200 <= status <= 599:
            raise ValueError(f"{name}={status}: give an HTTP status, from 200 to 599.")
