"""Makes histories whose verdict is known: valid ones by construction, and wrong ones by one provable change.

A valid history is a serial execution seen through a fog: every operation takes effect at one instant, between its
invocation and its completion, and the observer sees only those two. Operations may crash before or after they took
effect, or fail without effect. `perturb` then changes a history in a way after which no order can explain it.
"""

from jepsen_like.generate.perturb import PERTURBATIONS, perturb
from jepsen_like.generate.valid import MODELS, Settings, generate

__all__ = ["MODELS", "PERTURBATIONS", "Settings", "generate", "perturb"]
