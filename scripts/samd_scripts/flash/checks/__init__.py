"""``flash test``: an image in an emulated machine against a real broker, gateway and server on this computer.

``suite`` is the whole; ``ward`` the stack, the machine and what is heard of both; ``guest`` the way into the
machine, which exists in the test's own copy of the image alone; ``models`` the models that the checks need;
and a module for each group of checks.
"""
