"""What `helm test` runs: one transfer through the service, as two clients that may reach two different nodes."""

import os
import sys
import threading
from pathlib import Path

import httpx

BYTES = os.urandom(3_000_000)


def main() -> None:
    # The certificate of a node is for the name that its clients use, and not for that of the service.
    client = httpx.Client(base_url=os.environ["RELAY_TEST_URL"], verify=False, timeout=60)  # noqa: S501
    client.get("/readyz").raise_for_status()
    secret = Path("/run/secrets/relay/RELAY_TOKEN_SECRET")
    secrets = secret.read_text().replace(",", "\n").split() if secret.exists() else []
    made = client.post("/token", headers={"authorization": f"Bearer {secrets[0]}"} if secrets else {})
    if made.status_code == httpx.codes.UNAUTHORIZED and not secrets:
        print("The nodes are ready. The chart knows only the digests of named secrets, so nothing was transferred.")
        return
    address = f"/{made.raise_for_status().text.strip()}/helm-test"
    answers: list[httpx.Response] = []
    receiver = threading.Thread(target=lambda: answers.append(client.get(address, params={"wait": 30})))
    receiver.start()
    sent = client.put(address, content=BYTES)
    receiver.join()
    print(f"sender: {sent.status_code} {sent.text.strip()}")
    print(f"receiver: {answers[0].status_code}, {len(answers[0].content)} bytes")
    if not sent.is_success or not answers[0].is_success or answers[0].content != BYTES:
        sys.exit("The bytes have not arrived.")
    print("The bytes have arrived.")


if __name__ == "__main__":
    main()
