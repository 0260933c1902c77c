"""The pipeline: producer, classifier, batcher, sender and checkpoint, joined by bounded streams.

No adapter is imported here: what a stage needs of one is a port.
"""
