"""An HTTP library as an agent would use it: each URL in turn, on one session where it has one.

    http_client.py httpx|requests|aiohttp|urllib METHOD URL...

Prints a JSON line for each answer.
"""

import asyncio
import json
import sys

# What an agent might bring along; it must never arrive.
HEADERS = {"authorization": "Bearer agents-own", "x-api-key": "agents-own-key"}


def show(status, body):
    print(json.dumps({"status": status, "body": body}), flush=True)


def with_httpx(method, urls):
    import httpx

    with httpx.Client(timeout=20) as client:
        for url in urls:
            answer = client.request(method, url, headers=HEADERS)
            show(answer.status_code, answer.text)


def with_requests(method, urls):
    import requests

    with requests.Session() as session:
        for url in urls:
            answer = session.request(method, url, headers=HEADERS, timeout=20)
            show(answer.status_code, answer.text)


def with_urllib(method, urls):
    from urllib import error, request

    for url in urls:
        call = request.Request(url, method=method, headers=HEADERS)
        try:
            with request.urlopen(call, timeout=20) as answer:
                show(answer.status, answer.read().decode())
        except error.HTTPError as answer:
            show(answer.code, answer.read().decode())


def with_aiohttp(method, urls):
    import aiohttp

    async def main():
        limit = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=limit) as session:
            for url in urls:
                async with session.request(method, url, headers=HEADERS) as answer:
                    show(answer.status, await answer.text())

    asyncio.run(main())


LIBRARIES = {
    "httpx": with_httpx,
    "requests": with_requests,
    "urllib": with_urllib,
    "aiohttp": with_aiohttp,
}

if __name__ == "__main__":
    library, method, *urls = sys.argv[1:]
    LIBRARIES[library](method, urls)
