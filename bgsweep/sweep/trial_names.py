"""Names of a sweep's trials: t00, t01 and so on in the order of proposals; c01 is the trial that confirms t01."""


def by_number(trial: str) -> tuple[bool, int, str]:
    """Key that sorts trials' names: t99 before t100, in the order of proposals, then those that confirm others."""
    return is_confirmation(trial), len(trial), trial


def confirmation_of(trial: str) -> str:
    """The name of the trial that confirms another: c03 for t03 (`search.confirm`)."""
    return f"c{trial[1:]}"


def confirmed_by(trial: str) -> str:
    """The trial that one confirms: t03 for c03; any other trial itself."""
    return f"t{trial[1:]}" if is_confirmation(trial) else trial


def is_confirmation(trial: str) -> bool:
    """True for the name of a trial that confirms another."""
    return trial.startswith("c")
