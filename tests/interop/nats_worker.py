"""A worker without any SDK: only a NATS client, and the wire format written out by hand.

    nats_worker.py NATS_URL WORKER_ID POOL

It listens on `worker.<id>.jobs` and sends heartbeats. Jobs with the label `fail` fail with its value as text; results carry
an explicit default (`execution_ms` = 0) and an unknown field, both of which a decoder has to bear.
"""

import asyncio
import sys

import nats

SUCCEEDED, FAILED = 5, 6


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def blob(field: int, value) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def parse(data: bytes):
    """Yields (field, value) pairs; values are ints or bytes."""
    at = 0

    def read_varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(data):
        key = read_varint()
        field, kind = key >> 3, key & 7
        if kind == 0:
            yield field, read_varint()
        elif kind == 2:
            size = read_varint()
            yield field, data[at : at + size]
            at += size
        else:
            size = {1: 8, 5: 4}[kind]
            yield field, data[at : at + size]
            at += size


def entries(pairs, field: int) -> dict:
    """A map<string, string> field."""
    found = {}
    for name, value in pairs:
        if name == field:
            entry = dict(parse(value))
            found[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
    return found


async def main() -> None:
    nats_url, worker_id, pool = sys.argv[1:]
    connection = await nats.connect(nats_url)

    async def on_job(message) -> None:
        packet = dict(parse(message.data))
        if 10 not in packet:
            return
        request = list(parse(packet[10]))
        job_id = dict(request)[1].decode()
        failure = entries(request, 15).get("coretex.test.fail", "")
        result = (
            blob(1, job_id)
            + number(2, FAILED if failure else SUCCEEDED)
            + blob(4, worker_id)
            + number(5, 0)
            + (blob(7, failure) if failure else b"")
            + blob(99, "from the future")
        )
        answer = blob(1, packet.get(1, b"")) + blob(2, worker_id) + number(4, 1) + blob(11, result)
        await connection.publish("sys.job.result", answer)

    await connection.subscribe(f"worker.{worker_id}.jobs", cb=on_job)
    await connection.flush()
    print("ready", flush=True)
    while True:
        # No creation time, no labels, no capabilities: only what placement needs.
        heartbeat = blob(1, worker_id) + blob(11, pool) + number(12, 4)
        await connection.publish("sys.heartbeat", blob(2, worker_id) + number(4, 1) + blob(12, heartbeat))
        await asyncio.sleep(1)


asyncio.run(main())
