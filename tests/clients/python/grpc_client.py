"""gRPC's own Python library against `exeat.test.Echo`: a unary call, a streamed one, a refused one.

    grpc_client.py HOST:PORT

The messages are bytes to this client, so that no generated code is needed. Prints a JSON line each.
"""

import json
import os
import sys

import grpc

# A protobuf message with one field of text.
MESSAGE = b"\x0a\x05hello"
AGENT = (("authorization", "Bearer agents-own"),)


def main(target):
    # The library has its own idea of which certificates to trust, and takes it from this variable.
    assert os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"), "no roots for gRPC are set"
    with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as channel:
        say = channel.unary_unary("/exeat.test.Echo/Say")
        show("Say", lambda: [say(MESSAGE, metadata=AGENT, timeout=20)])
        count = channel.unary_stream("/exeat.test.Echo/Count")
        show("Count", lambda: list(count(MESSAGE, metadata=(*AGENT, ("x-count", "5")), timeout=20)))
        chat = channel.stream_stream("/exeat.test.Echo/Chat")
        show("Chat", lambda: list(chat(iter([MESSAGE] * 4), metadata=AGENT, timeout=20)))
        denied = channel.unary_unary("/exeat.test.Secret/Read")
        show("Read", lambda: [denied(MESSAGE, metadata=AGENT, timeout=20)])


def show(name, call):
    try:
        replies = call()
        assert all(reply == MESSAGE for reply in replies), replies
        print(json.dumps({"call": name, "replies": len(replies)}), flush=True)
    except grpc.RpcError as error:
        print(json.dumps({"call": name, "code": error.code().name, "details": error.details()}),
              flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
