"""Serving a database: `wire` plus sockets. No semantics here: what a call means is the store's to say.

connection   one client: frames in, calls, frames out; what it may take
server       listeners and the loop they run on; limits, tokens, TLS; begin and end
access       who may do what: tokens, kept as hashes
host         the owner of a directory, for the other processes on the machine that open it
http         the same operations for whoever has curl, a browser, or another language
"""
