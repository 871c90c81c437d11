"""How objects of this package are taken apart to travel with a request."""

from __future__ import annotations

import copyreg
from contextvars import ContextVar
from typing import Any

from nnsight.intervention.eproperty import eproperty

# While this is set, a `VisionModel` that is pickled leaves everything behind that a trace cannot use.
shipping: ContextVar[bool] = ContextVar("shipping", default=False)


def _reduce_eproperty(value: eproperty) -> tuple[Any, ...]:
    # The token views are class attributes of this type, which pickle cannot take apart by itself; all of it is in __dict__.
    return property.__new__, (eproperty,), value.__dict__


copyreg.pickle(eproperty, _reduce_eproperty)
