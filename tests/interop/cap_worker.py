"""A worker that uses the published CAP SDK for Python, as users of that SDK write it.

    cap_worker.py NATS_URL WORKER_ID SUBJECT [pool=POOL] [redis=URL]

It listens on one subject. With a pool it also sends heartbeats, as the SDK itself never does. The prompt says what the
handler does: `raise TEXT` raises, `nothing` returns None, `unset` forgets the status, anything else succeeds with a result
behind a pointer.
"""

import asyncio
import json
import sys

import nats
import redis.asyncio as redis
from cap.pb.cordum.agent.v1 import buspacket_pb2, heartbeat_pb2, job_pb2
from cap.worker import run_worker


async def main() -> None:
    nats_url, worker_id, subject, *rest = sys.argv[1:]
    options = dict(word.split("=", 1) for word in rest)
    store = redis.from_url(options["redis"]) if "redis" in options else None

    async def handle(request):
        prompt = ""
        if store is not None:
            # A pointer is `redis://` and a key, not an address.
            payload = await store.get(request.context_ptr.removeprefix("redis://"))
            prompt = json.loads(payload or b"{}").get("prompt", "")
        if prompt.startswith("raise "):
            raise RuntimeError(prompt.removeprefix("raise "))
        if prompt == "nothing":
            return None
        if prompt == "unset":
            return job_pb2.JobResult(job_id=request.job_id, worker_id=worker_id)
        pointer = ""
        if store is not None:
            key = f"res:{request.job_id}"
            await store.set(key, json.dumps({"echo": prompt, "by": worker_id}), ex=3600)
            pointer = f"redis://{key}"
        return job_pb2.JobResult(
            job_id=request.job_id,
            status=job_pb2.JOB_STATUS_SUCCEEDED,
            worker_id=worker_id,
            result_ptr=pointer,
        )

    async def beat() -> None:
        connection = await nats.connect(nats_url)
        while True:
            packet = buspacket_pb2.BusPacket(sender_id=worker_id, protocol_version=1)
            packet.heartbeat.CopyFrom(
                heartbeat_pb2.Heartbeat(worker_id=worker_id, pool=options["pool"], max_parallel_jobs=4)
            )
            await connection.publish("sys.heartbeat", packet.SerializeToString())
            await asyncio.sleep(1)

    tasks = [run_worker(nats_url, subject, handle, sender_id=worker_id)]
    if "pool" in options:
        tasks.append(beat())
    print("ready", flush=True)
    await asyncio.gather(*tasks)


asyncio.run(main())
