"""``clsinterp check``."""

from clsinterp.console import (
    ALLOW_PICKLE,
    CONFIG,
    DEVICE,
    DTYPE,
    HOST,
    MODEL,
    REMOTE,
    command,
    fail,
    out_console,
    quiet_libraries,
    server_of,
)
from clsinterp.models.source import found
from clsinterp.parse import parse_config


@command
def check(
    model: MODEL,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
    remote: REMOTE = False,
    host: HOST = None,
) -> None:
    """Check against plain torch that this package reads and writes a checkpoint where it says.

    With --remote: whether a server hosts it, in the same versions, and runs traces written here.

    Examples:
        clsinterp check zoo/vit
        clsinterp check google/vit-base-patch16-224 --remote
    """
    found(model)  # before torch is imported
    quiet_libraries()
    server = server_of(remote, host)
    from clsinterp.checks.local import check as check_model
    from clsinterp.checks.remote import check_remote
    from clsinterp.vision_model import VisionModel

    loaded = VisionModel(
        model,
        config=parse_config(config),
        dtype=dtype,
        device=device,
        allow_pickle=allow_pickle,
        remote=server or False,
    )
    failed = 0
    for finding in check_model(loaded) if server is None else check_remote(loaded):
        mark = "[green]ok  [/green]" if finding.holds else "[bold red]FAIL[/bold red]"
        detail = f" ({finding.detail})" if finding.detail else ""
        out_console.print(mark, f"{finding.what}{detail}", highlight=False, soft_wrap=True)
        failed += not finding.holds
    if failed:
        fail(f"{failed} checks failed for {model}.", 1)
