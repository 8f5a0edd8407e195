"""Plain values: what goes in, what comes out, what is in between; no I/O, no Beam."""
