"""What ``experiments/head_patching.py`` stands on."""
