"""What ``experiments/frequency.py`` stands on."""
