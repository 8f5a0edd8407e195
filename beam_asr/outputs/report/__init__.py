"""Makes the pages that people look at: the report of a run, and the comparison of several."""
