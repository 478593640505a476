"""The protocol, as pure functions: bytes to messages and back, without sockets, blind to which side it
serves.

frames     length, kind and id in front of MessagePack; what one side says to the other
errors     errors of Strata as plain data
asks       what one side may ask of a store at the other: the methods of `core.protocols`, and no others
session    the store's side of one connection: handles, and calls of what they stand for

docs/design/wire.md says it byte by byte; conformance/wire.json holds examples for all languages.
"""
