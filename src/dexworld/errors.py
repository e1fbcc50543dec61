"""Errors that a user can mend: the command line shows their message in one line."""


class UsageError(RuntimeError):
    """Something outside dexworld is missing or set wrongly; the message says what to do."""
