"""Fuzzing of everything that reads what comes from outside.

A target (``target``) is one decoder and the property that it must keep for any bytes: what it gives is a
reading or a message that is really written there, or the documented error, in one line with place and
reason; never a traceback, never another value, never a wrong score (``oracle``, against the chart in
``chart``). Targets whose name ends in ``-written`` make valid input themselves, from the bytes as choices
(``choices``), change one part of it, and know what has to come of it.

The same properties run under atheris and under hypothesis (``engines``); ``scripts/fuzz`` and the tests
call them.
"""
