"""Errors for the person at the keyboard: one line, and the exit status of the command."""


class UserError(Exception):
    """Something the user can mend; the commands print it as one line and exit with `status` (1)."""

    status = 1


class UsageError(UserError):
    """A request that cannot be carried out as asked; exit status 2."""

    status = 2
