"""MCP: a database as the memory of an agent host, over stdio or streamable HTTP.

    scope      what a host may reach, and the door to it
    shown      stored data, made fit for a model
    requests   what tools take                  answers    what they return
    memory     remember, recall                 entities   read, write, history
    branching  branch, merge                    guidance   explain, guide
    tools      the list of tools                prompts    what a person may have a model do
    resources  what is stored, by its address
    host       all that over stdio              http       and over streamable HTTP: these two import the SDK

The tools are few, as an agent needs them, and not one for each operation. Every host opens the path itself,
so several may have the same database at once.
"""
