"""A Flipsnack on your own machine: for tests, demonstrations and a first look, without a key."""

try:
    from ._ledger import SandboxCall, SandboxDownload
    from ._sandbox import Sandbox
except ModuleNotFoundError as error:
    if (error.name or "").startswith("flipsnack_async"):
        raise
    remedy = f"the sandbox needs {error.name}: pip install 'flipsnack-async[sandbox]'"
    raise ModuleNotFoundError(remedy, name=error.name) from None

__all__ = ["Sandbox", "SandboxCall", "SandboxDownload"]
