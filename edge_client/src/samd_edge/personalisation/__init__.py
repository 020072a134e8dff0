"""Personalisation: how a device takes part in the global model, and what it keeps of its own beside it.

Pure functions over flat float32 vectors: no file, no clock, no network, no TensorFlow. What is drawn comes
from the generator that is given, and one epoch of training is a function that is given, so that the trainer
of a device and a benchmark run the same code.

=============  ====================================================================================
module         what it says
=============  ====================================================================================
``method``     the state, the three steps, and the functions that every method is
``none``       FedAvg's client: no personal model
``fedprox``    the same, held near the global weights
``finetune``   the final global weights, trained a little further
``ditto``      a model of its own, pulled towards the global one
``fedper``     the shared body under a head of its own, trained together
``fedrep``     the same, trained one after the other
``apfl``       a mixture of a model of its own and the global one
``layout``     which weights are body and head
``policy``     whether a personal model may assess its patient
``forgetting`` readings over the whole physiological range, that no model may forget
=============  ====================================================================================
"""

from collections.abc import Sequence

from samd_edge.personalisation.apfl import apfl
from samd_edge.personalisation.ditto import ditto
from samd_edge.personalisation.fedper import fedper
from samd_edge.personalisation.fedprox import fedprox
from samd_edge.personalisation.fedrep import fedrep
from samd_edge.personalisation.finetune import finetune
from samd_edge.personalisation.layout import head_of
from samd_edge.personalisation.method import Epoch, Method, MethodError, Metrics, State
from samd_edge.personalisation.none import none
from samd_protocol.bundle import Layer
from samd_protocol.methods import refusal

__all__ = ["Epoch", "Method", "MethodError", "Metrics", "State", "by_name", "head_of"]


def by_name(name: str, layers: Sequence[Layer]) -> Method:
    """The method of this name for a model of this layout. Raises MethodError with what to choose instead."""
    reason = refusal(name, layers)
    if reason is not None:
        raise MethodError(reason)
    head = head_of(layers)
    made = {
        "none": none,
        "finetune": finetune,
        "fedprox": fedprox,
        "ditto": ditto,
        "fedper": lambda: fedper(head),
        "fedrep": lambda: fedrep(head),
        "apfl": apfl,
    }
    return made[name]()
