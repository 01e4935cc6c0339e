"""An agent as the SDK's own documentation would write it. The key is a word that is worth nothing."""

import openai

client = openai.OpenAI(
    base_url="https://models.example.test:8443/v1", api_key="worth-nothing", max_retries=0, timeout=20
)

for model in ["gpt-5-mini", "gpt-9-huge"]:
    print(f"-- {model}")
    try:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "May this pass?"}],
            stream=True,
        )
        for chunk in answer:
            if chunk.choices and chunk.choices[0].delta.content:
                print(chunk.choices[0].delta.content, end="", flush=True)
        print()
    except openai.PermissionDeniedError as error:
        print("denied:", error.body["message"])
