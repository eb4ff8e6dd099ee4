"""The one error that the command line turns into a line `error: …` and exit code 2."""


class UserError(Exception):
    """Something that the user can mend; the message names the file, key or value and the cure."""
