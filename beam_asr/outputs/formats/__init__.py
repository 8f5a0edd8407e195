"""What else a transcript is written as: one file a format."""
