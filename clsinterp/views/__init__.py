"""One image through the logit lens."""
