"""The command line: arguments in, exit codes out, and how an answer looks on a terminal.

What a command does belongs in `commands`.
"""
