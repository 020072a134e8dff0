"""Images for the bedside: built on any Linux computer, run in QEMU, tested against a real stack, written.

What lives here, in the order of a device: ``tools`` and ``cache`` (what a build needs, what it keeps),
``profiles`` (which packages), ``debian`` (the root file system), ``overlay`` (what this project adds to it),
``initrd``, ``disk`` and ``assemble`` (the image), ``raspios`` (the same in a given Raspberry Pi OS image),
``base`` (all of that, cached), ``device`` and ``fleet`` (images for named devices), ``sbom`` and ``imager``
(what lies beside an image), ``write`` (a card), ``machine`` (QEMU), ``checks`` (`flash test`), ``cli``.

Nothing of the device's processor is run to make a device's image. No root file system of a running machine is
ever copied: the Debian one comes as the archive that mmdebstrap writes.
"""
