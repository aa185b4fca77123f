"""How fast a compiled network is on this machine, and where its time goes."""
