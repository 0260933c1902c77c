"""What each command does, with its request and its report. How they are typed and shown belongs in `cli`."""
