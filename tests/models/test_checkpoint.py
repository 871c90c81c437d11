"""Where a checkpoint comes from is kept exactly; where its weights go is looked at."""

import os
import shutil
import subprocess
import sys

import pytest

from clsinterp.errors import RequestError
from clsinterp.vision_model import VisionModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = "from clsinterp.models.loading import load_checkpoint; print(load_checkpoint('org/tiny').revision)"


def test_the_commit_on_the_hub_is_known(checkpoint, tmp_path):
    stored = tmp_path / "hub" / "models--org--tiny"  # as huggingface_hub lays its cache out
    shutil.copytree(checkpoint("vit"), stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == COMMIT


@pytest.mark.parametrize("plan", [{"": "disk"}, {"vit": "cpu", "classifier": "disk"}, {"": "meta"}])
def test_a_plan_that_leaves_weights_on_no_device_is_refused(checkpoint, plan):
    with pytest.raises(RequestError, match=r"device_map=.*classifier\.(bias|weight).*bfloat16") as error:
        VisionModel(str(checkpoint("vit")), device_map=plan)
    assert str(plan) in str(error.value)
