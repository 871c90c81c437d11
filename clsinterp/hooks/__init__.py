"""TransformerLens's names, on every family."""
