"""How models are driven: one file a decoder family."""
