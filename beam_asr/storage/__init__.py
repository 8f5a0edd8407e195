"""Files on any storage; knows nothing of speech."""
