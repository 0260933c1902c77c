"""Peers: other ways to deliver the same log, beside kiva_stream's, to the same receiver.

One file a way, run as a process of its own by `side_by_side`. What is not compared is the same for all and
is kiva_stream's own (`script`): how the log is read and classified, the HTTP client and the body of an
event. So the rows of the table differ by how events are handed out, and by what is saved of them, and when.
"""
