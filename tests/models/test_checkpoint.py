"""Where a checkpoint comes from is kept exactly; where its weights go is looked at."""

import hub_cache
import pytest

from clsinterp.errors import RequestError
from clsinterp.models.loading import load_checkpoint
from clsinterp.vision_model import VisionModel


def test_the_commit_on_the_hub_is_known(checkpoint, tmp_path, monkeypatch):
    hub_cache.add(hub_cache.use(tmp_path / "hub", monkeypatch), "org/tiny", checkpoint("vit"))
    assert load_checkpoint("org/tiny").revision == hub_cache.COMMIT


@pytest.mark.parametrize("plan", [{"": "disk"}, {"vit": "cpu", "classifier": "disk"}, {"": "meta"}])
def test_a_plan_that_leaves_weights_on_no_device_is_refused(checkpoint, plan):
    with pytest.raises(RequestError, match=r"device_map=.*classifier\.(bias|weight).*bfloat16") as error:
        VisionModel(str(checkpoint("vit")), device_map=plan)
    assert str(plan) in str(error.value)
