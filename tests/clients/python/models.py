"""The official OpenAI and Anthropic SDKs, streaming, with a key that is worth nothing.

    models.py openai|anthropic BASE MODEL...

Prints a JSON line for each model: the pieces of the answer, and when each came.
"""

import json
import sys
import time

QUESTION = [{"role": "user", "content": "May this pass?"}]


def with_openai(base, model):
    import openai

    client = openai.OpenAI(
        base_url=f"{base}/v1", api_key="agents-own", max_retries=0, timeout=20
    )
    try:
        stream = client.chat.completions.create(
            model=model, messages=QUESTION, stream=True
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content
    except openai.APIStatusError as error:
        yield {"status": error.status_code, "body": error.response.text}


def with_anthropic(base, model):
    import anthropic

    client = anthropic.Anthropic(
        base_url=base, api_key="agents-own", max_retries=0, timeout=20
    )
    try:
        with client.messages.stream(
            model=model, max_tokens=64, messages=QUESTION
        ) as stream:
            yield from stream.text_stream
    except anthropic.APIStatusError as error:
        yield {"status": error.status_code, "body": error.response.text}


if __name__ == "__main__":
    library, base, *models = sys.argv[1:]
    ask = {"openai": with_openai, "anthropic": with_anthropic}[library]
    for model in models:
        start, pieces, times = time.monotonic(), [], []
        for piece in ask(base, model):
            pieces.append(piece)
            times.append(round(time.monotonic() - start, 3))
        print(json.dumps({"model": model, "pieces": pieces, "times": times}), flush=True)
