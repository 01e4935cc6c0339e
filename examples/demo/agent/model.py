"""Asks a model through the official OpenAI SDK, and prints the answer while it comes."""

import sys

import openai

client = openai.OpenAI(
    base_url="https://models.demo.test:8443/v1",
    api_key="worth-nothing",
    max_retries=0,
    timeout=20,
)
try:
    answer = client.chat.completions.create(
        model=sys.argv[1],
        messages=[{"role": "user", "content": "May this pass?"}],
        stream=True,
    )
    for chunk in answer:
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()
except openai.APIStatusError as error:
    print(f"{type(error).__name__}: HTTP {error.status_code}, {error.body['code']}")
