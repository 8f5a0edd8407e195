"""From an input's name to rows and members; no audio is decoded here."""
