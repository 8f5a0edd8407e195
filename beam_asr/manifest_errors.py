"""Why a line or record of an input cannot become a row: one family, `ManifestError`."""


class ManifestError(ValueError):
    """A line that cannot become a row; each subclass is one cause.

    Attributes:
        line: what was read and is to be shown of it, where that is no row's line.
    """

    def __init__(self, message: str, line: str = ""):
        super().__init__(message)
        self.line = line


class LineTooLongError(ManifestError):
    """The line, or the record of a table, is longer than any row."""


class NotJsonError(ManifestError):
    """The line is not JSON in UTF-8, or nests deeper than any row."""


class NotAnObjectError(ManifestError):
    """The line is JSON, but not an object."""


class DuplicateKeyError(ManifestError):
    """An object in the line has a key more than once, so that not all of it could be kept."""


class MissingAudioError(ManifestError):
    """The row does not name its audio."""


class BadFieldError(ManifestError):
    """A field that the job reads has a value it cannot have, or any field one that is not kept."""


class BadRecordError(ManifestError):
    """A record of a table, or a cut, that its own format does not allow or the job cannot read."""


class MissingMemberError(ManifestError):
    """A row of a tarred data set whose audio is in no tar."""


class UnmappedRowError(ManifestError):
    """No model takes the row, and there is none for all others."""
