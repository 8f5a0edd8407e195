"""From a clip to mono float32 samples, and from a long recording to segments."""
