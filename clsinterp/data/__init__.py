"""Labelled images to batches of pixels."""
