"""What reads a token."""

from clsinterp.probing.head import Head

__all__ = ["Head"]
