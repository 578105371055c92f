"""The one exception of this package."""


class LocalError(Exception):
    """Something on this machine is not as it must be; the message says what to do about it."""
