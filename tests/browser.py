"""A Chrome or Chromium for the tests: found, or installed where there is none; a step of ``make test``.

kaleido draws static images with it, playwright drives the explorer's page.
"""

import os
import shutil
import subprocess
import sys
from functools import partial

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# What installs one, tried in order where its first word is there: as root, or by sudo without a password.
SYSTEM = (
    ("apt-get", "sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium'"),
    ("dnf", "dnf install -y -q chromium"),
    ("apk", "apk add -q chromium"),
    ("pacman", "pacman -Sy --noconfirm chromium"),
)
DOWNLOADS = (
    [sys.executable, "-m", "playwright", "install", "chromium"],
    [sys.executable, "-c", "import choreographer; choreographer.get_chrome_sync()"],
)


def find() -> str | None:
    """The path of a browser: BROWSER_PATH, one on the PATH, or one that playwright or choreographer keeps."""
    on_path = (partial(shutil.which, name) for name in NAMES)
    places = (partial(os.environ.get, "BROWSER_PATH"), *on_path, _of_choreographer, _of_playwright)
    found = (place() for place in places)  # one after the other: asking playwright starts a process
    return next((path for path in found if path and os.access(path, os.X_OK)), None)


def _of_playwright() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _of_choreographer() -> str | None:
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False)


def install() -> None:
    """Try the system's package manager, then the downloads of playwright and choreographer, until there is a browser."""
    may = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "-n"]
    steps = [["sh", "-c", " ".join([*may, line])] for tool, line in SYSTEM if shutil.which(tool)]
    for step in [*steps, *DOWNLOADS]:
        print(f"installing a browser: {' '.join(step)}", flush=True)
        try:
            subprocess.run(step, stdout=subprocess.DEVNULL, timeout=600, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(error)
        if find():
            return


if __name__ == "__main__":
    if find() is None:
        install()
    if find() is None:
        sys.exit(
            "the tests need Chrome or Chromium, and none could be installed here. Install one, or set BROWSER_PATH to one, and "
            "give the same command again."
        )
