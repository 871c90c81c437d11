"""A checkpoint and how its family is laid out: all that a VisionModel is made of."""
