"""What every dispatch on a name or a type ends in, so that none falls through to another's work."""


class UnhandledError(AssertionError):
    """Nothing is written for a name or a type: a fault of the compiler, never of the user."""

    def __init__(self, what: str, found: object) -> None:
        super().__init__(f"nothing is written for the {what} {found!r}")
