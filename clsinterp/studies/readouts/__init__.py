"""What ``experiments/readouts.py`` stands on."""
