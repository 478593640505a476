"""One adapter a peer. What a peer needs is installed by `make bench` and imported only in its adapter."""
