"""Opens, lists, writes and deletes files on any storage, whatever they hold."""
