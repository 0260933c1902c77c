"""What a log entry is: matching, payload, classifier.

It is pure: no clock and no I/O. The stage that runs it belongs in `pipeline`.
"""
