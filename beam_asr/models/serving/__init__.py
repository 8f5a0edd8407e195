"""From clips to futures: which together, in which thread, within which time."""
