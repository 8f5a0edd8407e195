"""Why a line or record of an input cannot become a row: one family, `ManifestError`."""


class ManifestError(ValueError):
    """A line that cannot become a row; each subclass is one cause."""


class NotJsonError(ManifestError):
    """The line is not JSON."""


class NotAnObjectError(ManifestError):
    """The line is JSON, but not an object."""


class MissingAudioError(ManifestError):
    """The row does not name its audio."""


class BadFieldError(ManifestError):
    """A field that the job reads has a value it cannot have."""


class BadRecordError(ManifestError):
    """A record of a table, or a cut, that its own format does not allow or the job cannot read."""


class MissingMemberError(ManifestError):
    """A row of a tarred data set whose audio is in no tar."""
