"""`python -m kiva_stream`, and the script `kiva-stream`."""

import sys

from kiva_stream.cli.standard_streams import StandardStreams


def main() -> None:
    """Run the command of this process's arguments; leaves by SystemExit with the documented code."""
    streams = StandardStreams()
    from kiva_stream.cli.app import main as run_command  # noqa: PLC0415  its modules look at the streams

    try:
        run_command()
    except SystemExit as left:
        if (obstacle := streams.obstacle()) is None:
            raise
        print(obstacle, file=sys.stderr)  # noqa: T201
        sys.exit(left.code or 1)


if __name__ == "__main__":
    main()
