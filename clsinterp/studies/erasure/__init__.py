"""What ``experiments/erasure.py`` stands on."""
