"""A Flipsnack on your own machine: for tests, demonstrations and a first look, without a key."""

from ._ledger import SandboxCall
from ._sandbox import Sandbox

__all__ = ["Sandbox", "SandboxCall"]
