"""Updates of the client itself: one release beside another, a switch, a trial, and the way back.

What lives here, in the order of an update: ``manifest`` (what a release says of itself), ``package`` (a
release as one file, read with suspicion), ``layout`` (the releases of a device and the links between them),
``trial`` (a release that has to prove itself), ``service`` and ``health`` (the client as a process, and
whether it does its work), ``schemas`` (whether there is a way back), ``device`` (all of this together),
``steps`` (up to the switch), ``verdict`` (from there), ``command``; ``running`` says which release this is.
"""
