"""The `websockets` library: says things at each URL and expects them back.

    websocket_client.py URL...

Prints a JSON line for each URL.
"""

import json
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

HEADERS = {"Authorization": "Bearer agents-own"}


def main(urls):
    for url in urls:
        try:
            with connect(url, additional_headers=HEADERS, open_timeout=20) as socket:
                said = ["hello", b"\x00\xff" * 200, "x" * 70000]
                for message in said:
                    socket.send(message)
                    assert socket.recv(timeout=20) == message
                print(json.dumps({"status": 101, "messages": len(said)}), flush=True)
        except InvalidStatus as error:
            answer = error.response
            print(json.dumps({"status": answer.status_code, "body": answer.body.decode()}),
                  flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
