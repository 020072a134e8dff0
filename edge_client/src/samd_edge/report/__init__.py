"""The record of one admission as a page: ``samd-edge report``. Nothing here writes to a store.

==================  ==================================================================================
module              what it holds
==================  ==================================================================================
``source``          which store is meant, opened read-only, also while the agent writes to it
``history``         what the store says of a period, with everything that was struck or flagged
``gaps``            when nothing was read for longer than the chart allows; how long each class lasted
``thinning``        hundreds of thousands of values as few as a plot can show, nothing bad left out
``plots``           the picture: signs, score, classes, alerts (the only module that loads matplotlib)
``page``            the page around it (the only module that loads Jinja2)
``page.html.j2``    its template: no script, nothing from the network, every name escaped
==================  ==================================================================================

A value that was struck or flagged is shown as such and never joins a line. Missing is a hole, never 0.
"""
