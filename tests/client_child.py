"""A producing service that is killed: sends what its arguments say, tells each place on standard output, and waits.

`python client_child.py BOOTSTRAP TENANT SERVICE EPOCH KEY_FILE TRUST_FILE REQUEST_ID...`
"""

import asyncio
import sys
from pathlib import Path

from sluicegate.client import Client, ClientConfig


async def main(bootstrap: str, tenant: str, service: str, epoch: str, key: str, trust: str, *request_ids: str) -> None:
    config = ClientConfig(
        bootstrap=bootstrap,
        tenant=tenant,
        service=service,
        epoch=int(epoch),
        key=Path(key),
        trust=Path(trust),
        timeout_s=600.0,
    )
    async with Client(config) as client:
        for request_id in request_ids:
            sent = await client.submit(
                model="smollm2", purpose="writing", text=f"asked by {request_id}", request_id=request_id
            )
            print(request_id, sent.place, flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
