"""What ``experiments/rereading.py`` stands on."""
