"""`python -m kiva_stream`, and the script `kiva-stream`."""

from kiva_stream.cli.app import main

if __name__ == "__main__":
    main()
