"""Program 3, the Flower server: network and export, rounds, checkpoint, gate, model store.

It meets devices and gateway only on the wire (`samd_protocol`) and never imports them. `samd-server run`
holds no TensorFlow: the graph is data, and the interpreter evaluates it. What Flower keeps internal and we
must touch lives in `flower.py` alone.
"""

__version__ = "0.1.0"
