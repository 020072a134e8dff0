"""The one error that bad data raises.

::

    Exception
    └── DataError        the data cannot be used as asked

A value that is wrong in one row is no error: it becomes a ``plausibility.Rejection`` and the rest of the
file goes on. Wrong arguments of a programmer raise ``ValueError`` as everywhere.
"""


class DataError(Exception):
    """Raised when data cannot be used: no such file, no known data set, no header, a doubtful unit.

    The message is one line: what, where, and what to do next.
    """
