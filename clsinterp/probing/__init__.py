"""What reads a token."""
