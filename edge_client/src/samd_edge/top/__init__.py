"""The local view: what ``samd-edge top`` draws, once a second, without any server.

==============  =====================================================================================
module          what it holds
==============  =====================================================================================
``feed``        where Views come from: the running agent, or a file; how a View ages when none comes
``words``       values, ages, points and classes as a person reads them
``trends``      a trend as rows of characters
``panels``      each part of the picture, from a View to lines of styled text; pure functions
``letters``     the severity in large letters
``plain``       the same parts as one page of plain text
``app``         the screen; it, ``look`` and ``form`` are the only modules that load Textual
``look``        colours in the dark and in the light, and the widget of a part
``form``        the form for an observation
==============  =====================================================================================

Two rules: what is missing is "--" and never a number; a view that is not of now never looks like one.
"""
