"""What a log entry is: matching, payload, classifier.

Pure: no clock and no I/O; the stream around it belongs in `pipeline`.
"""
