"""`crossfade demo`: the whole migration on servers of its own, with an application that works all the time.

data      the keys of a small web shop
app       the application: a program of its own that knows nothing of crossfade
actors    the processes: the proxy, the application; and the operator, who talks to the proxy
compare   both servers, key by key, without the proxy and without its code for reading and comparing keys
account   what happened, as a document
story     what happens, in order
view      how it looks on a terminal and in a log
command   the command line
"""
