"""The process of a Milvus Lite server: `python -m stoker.vectors.engines.lite_server FOLDER`.

Its port, or why there is none, is the one line that it says; it ends when its standard input does.
"""

import sys


def main(folder: str) -> int:
    """Serve a folder until standard input ends; return the exit code."""
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        server, database, port = start_server_in_thread(folder, host="127.0.0.1", port=0)
    except Exception as error:  # another process holds the folder, or it is not one of its own
        sys.stdout.write(f"{' '.join(str(error).split())[:400]}\n")
        return 1
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    server.stop(grace=2).wait()
    database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
