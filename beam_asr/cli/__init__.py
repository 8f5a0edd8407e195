"""`beam-asr`: flags, checks, launch, runners."""
