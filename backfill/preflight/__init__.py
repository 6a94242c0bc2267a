"""Preflight: what stands in the way of a migration between two servers, found out before anything starts.

`needs` is the table of what the product asks of a server, `look` and `sample` are the doors that ask, `judge` decides
(pure), `command` is the CLI. Nothing is ever written to the source: what a command would be allowed to do is asked for
in a MULTI that ends with DISCARD, where a server judges user, command and keys, and runs nothing.
"""
