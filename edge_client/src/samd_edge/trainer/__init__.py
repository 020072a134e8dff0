"""The trainer: a worker process that learns from one admission's recordings, and talks to its agent alone.

=================  ==============================================================================
module             what it says
=================  ==============================================================================
``frames``         what agent and trainer say to each other over two pipes
``rows``           from the readings of a store to the rows of training and hold-out
``learning``       one round: train, or evaluate; pure, the same for both trainers
``personalising``  the end of a run: the personal model is fitted, examined, used or not
``litert``         the trainer of every device: the graph inside the bundle
``tensorflow``     the reference: the same maths on the Keras network, needs ``samd-edge[tensorflow]``
``worker``         answers frames, one after the other
``__main__``       the process: pipes, priority, memory ceiling
=================  ==============================================================================

Nothing here opens a network connection, and nothing that a task or a bundle holds is run as Python.
"""
