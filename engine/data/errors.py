"""The two ways in which a data set on disk can fail its reader."""

from engine.errors import EngineError, FileError


class DatasetMissing(EngineError, FileNotFoundError):
    """The files of a set are not where they were looked for; the text says which files to put where."""


class DatasetCorrupt(FileError):
    """A file is there but is not what its name says: truncated, damaged or another format."""
