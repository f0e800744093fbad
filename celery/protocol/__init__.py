"""Wire formats, built and parsed without I/O."""
