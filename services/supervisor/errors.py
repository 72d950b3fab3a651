"""Why a stack cannot be brought up."""


class Refused(Exception):
    """It is not even tried; the text says why, and what to do."""


class Failed(Exception):
    """It was tried, and taken down again; the text says what happened."""
