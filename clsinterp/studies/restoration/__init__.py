"""What ``experiments/restoration.py`` stands on."""
