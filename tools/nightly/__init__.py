"""One run a night: what is right, how fast, how large, against the last good commit."""
