"""A Flipsnack on your own machine: for tests, demonstrations and a first look, without a key."""

try:
    from ._ledger import SandboxCall, SandboxDownload
    from ._sandbox import Sandbox
except ModuleNotFoundError as _missing:
    if (_missing.name or "").startswith("flipsnack_async"):
        raise
    raise ModuleNotFoundError(
        f"the sandbox needs {_missing.name}: pip install 'flipsnack-async[sandbox]'",
        name=_missing.name,
    ) from None

__all__ = ["Sandbox", "SandboxCall", "SandboxDownload"]
