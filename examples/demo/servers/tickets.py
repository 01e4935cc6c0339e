"""A small MCP server on the official SDK, over Streamable HTTP: one tool to let an agent use, and
one to keep from it.

    tickets.py PORT
"""

import os
import sys
import threading

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

TICKETS = {17: "the gate squeaks", 18: "paint the gate"}

server = MCPServer("tickets")


@server.tool()
def search_tickets(text: str) -> str:
    """The tickets that mention a text"""
    found = [f"#{number} {title}" for number, title in TICKETS.items() if text in title]
    return ", ".join(found) or "none"


@server.tool()
def delete_tickets(text: str) -> str:
    """Deletes the tickets that mention a text"""
    return f"all tickets about {text} are gone"


def end_with_standard_input():
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    server.run(
        "streamable-http",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        transport_security=TransportSecuritySettings(
            allowed_hosts=["tools.demo.test:8443"], allowed_origins=[]
        ),
    )
