"""What the sandbox does where the documentation is silent or contradicts itself."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

States = tuple[str, str, str]


@attrs.frozen(kw_only=True)
class Choices:
    """The switches of a sandbox that its actions look at. `Sandbox` explains each."""

    page_size: int
    quota_code: Literal[33, 32]
    max_file_size: int
    max_pages: int
    pdf_only: bool
    convert_seconds: float
    state_field: str
    states: States
    unknown_hash_code: Literal[43, 46]
    keep_old_hashes: bool
    legacy_counters: bool
    lead_sample: Mapping[str, Any]
