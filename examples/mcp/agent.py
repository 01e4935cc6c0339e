"""An agent as the SDK's own documentation would write it."""

import asyncio

from mcp import Client
from mcp.shared.exceptions import MCPError

CALLS = [
    ("read_note", {"name": "monday"}),
    ("send_note", {"name": "monday", "to": "mallory@example.com"}),
]


async def main():
    async with Client("https://tools.example.test:8443/mcp", read_timeout_seconds=20) as client:
        listed = await client.list_tools()
        print("-- tools:", ", ".join(tool.name for tool in listed.tools))
        for tool, arguments in CALLS:
            print(f"-- {tool}")
            try:
                result = await client.call_tool(tool, arguments)
                print(*(part.text for part in result.content))
            except MCPError as error:
                print("denied:", error.error.message)


asyncio.run(main())
