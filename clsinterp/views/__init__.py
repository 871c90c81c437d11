"""One image through the logit lens."""

from clsinterp.views.intervention import Intervention

__all__ = ["Intervention"]
