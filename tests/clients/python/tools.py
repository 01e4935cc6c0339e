"""The official MCP SDK over Streamable HTTP: lists the tools, then calls each one named.

    tools.py URL TOOL=ARGUMENTS...

Prints a JSON line for the list and one for each call.
"""

import asyncio
import json
import sys

from mcp import Client
from mcp.shared.exceptions import MCPError


async def main(url, calls):
    async with Client(url, read_timeout_seconds=20) as client:
        listed = await client.list_tools()
        print(json.dumps({"tools": sorted(tool.name for tool in listed.tools)}), flush=True)
        for call in calls:
            name, arguments = call.split("=", 1)
            try:
                result = await client.call_tool(name, json.loads(arguments))
                text = [part.text for part in result.content if part.type == "text"]
                shown = {"tool": name, "text": text, "is_error": bool(result.is_error)}
            except MCPError as error:
                shown = {"tool": name, "code": error.error.code, "message": error.error.message,
                         "data": error.error.data}
            print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
