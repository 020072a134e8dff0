"""Vocabulary 1, clinical: readings, units, plausibility, NEWS2, severity, features, data sets.

Two rules hold in every module: missing is never zero, and stale is never fresh.

=================  ==============================================================================
module             what it says
=================  ==============================================================================
``reading``        the vital signs of one patient at one time, and the order of the columns
``plausibility``   what a sensor can have measured; units; what a rejected value is told
``news2``          points, total and band of the Royal College of Physicians' score, or its range
``response``       what the chart asks of the ward: who is called, when the next observations are due
``severity``       the four classes, and the labels that a model learns
``carry``          how long a value stays valid, and the latest values still valid at a time
``hourly``         one row per stay-hour of a recording
``features``       from rows to the numbers that a network reads
``history``        the features of up to six hours, and the patient's own baseline
``deterioration``  whether NEWS2 reaches 7 within six hours: when it is asked, and the labels
``tasks``          what a model can be asked, and what each question reads and tells
``calibration``    probabilities that mean what they say, and sets that say how sure they are
``splits``         training and test rows that do not leak into each other
``table``          readings as CSV or JSON lines, row by row
``synthetic``      made-up recordings that move like the real ones
``datasets``       open data sets (the only part that may load pandas and pyarrow, and only when opened)
``cli``            the command ``samd-data``
=================  ==============================================================================

Nothing here talks to a network, a broker or a model. Importing the package loads nothing: import the
module that is meant, as in ``from samd_data.news2 import score``.
"""

__version__ = "0.1.0"
