"""The one error that the command line turns into a line `error: …` and exit code 2, and what such a line may show."""

import re


class UserError(Exception):
    """Something that the user can mend; the message names the file, key or value and the cure."""


def without_password(text: str) -> str:
    """An address, or a text with one, as it may be shown and logged."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def one_line(error: BaseException) -> str:
    """An error of somebody else as a user may read it."""
    return without_password(" ".join(str(error).split())) or type(error).__name__
