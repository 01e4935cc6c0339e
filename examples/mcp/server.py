"""An MCP server on the official SDK, over Streamable HTTP, with a harmless tool and another.

    server.py FILE      writes its port to FILE once it listens; runs until its input ends
"""

import os
import pathlib
import socket
import sys
import threading

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

server = MCPServer("notes")


@server.tool()
def read_note(name: str) -> str:
    """A note by its name"""
    return f"{name}: the key is under the mat"


@server.tool()
def send_note(name: str, to: str) -> str:
    """Sends a note to somebody"""
    return f"sent {name} to {to}"


def end_with_standard_input():
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    app = server.streamable_http_app(
        transport_security=TransportSecuritySettings(
            allowed_hosts=["tools.example.test:8443"], allowed_origins=[]
        )
    )
    listener = socket.create_server(("127.0.0.1", 0))
    pathlib.Path(sys.argv[1]).write_text(str(listener.getsockname()[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
