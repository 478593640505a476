"""How fast we are beside others, in one run: `make bench`. See README.md here."""
