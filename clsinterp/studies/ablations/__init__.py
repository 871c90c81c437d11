"""What ``experiments/ablations.py`` stands on."""
