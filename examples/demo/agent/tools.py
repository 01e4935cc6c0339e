"""Calls a tool through the official MCP SDK, over Streamable HTTP."""

import asyncio
import sys

from mcp import Client
from mcp.shared.exceptions import MCPError


async def main(tool):
    async with Client("https://tools.demo.test:8443/mcp", read_timeout_seconds=20) as client:
        try:
            if tool == "search_tickets":
                listed = await client.list_tools()
                print("tools:", ", ".join(sorted(tool.name for tool in listed.tools)))
            result = await client.call_tool(tool, {"text": "gate"})
            for part in result.content:
                print(part.text)
        except MCPError as error:
            print(f"MCPError {error.error.code}: {error.error.data['code']}")


asyncio.run(main(sys.argv[1]))
