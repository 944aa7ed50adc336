"""Real gRPC processes for tests, moved by lines of JSON: backends of a service, and a client without a proxy.

``backend VERSION=PORT...`` serves; a line ``{"VERSION": share}`` lets that share of its calls fail. A call
with the metadata ``x-takes`` takes that many seconds.
``client TARGET`` calls: ``{"call": 400, "metadata": {...}}`` some at a time, ``{"start": rate}`` steadily,
``{"stop": true}`` no more. Each answer is how many calls ended how: by version, or by status code.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc

METHOD = "/test.Echo/Say"


def answer(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def backend(ports):
    failing = {}

    def server(version, port):
        def say(_request, context):
            if random.random() < failing.get(version, 0):
                context.abort(grpc.StatusCode.INTERNAL, "injected")
            time.sleep(float(dict(context.invocation_metadata()).get("x-takes", 0)))
            return version.encode()

        handler = grpc.method_handlers_generic_handler(
            "test.Echo", {"Say": grpc.unary_unary_rpc_method_handler(say)}
        )
        made = grpc.server(ThreadPoolExecutor(16), handlers=(handler,))
        assert made.add_insecure_port(f"127.0.0.1:{port}")
        made.start()
        return made

    servers = [server(*each) for each in ports.items()]
    for line in sys.stdin:
        failing.update(json.loads(line))
        answer({})
    for each in servers:
        each.stop(None)


def client(target):
    channel = grpc.insecure_channel(target)
    say = channel.unary_unary(METHOD)
    pool = ThreadPoolExecutor(8)
    running, counts, load = threading.Event(), Counter(), []

    def one(metadata=()):
        try:
            return say(b"", metadata=tuple(metadata), timeout=60).decode()
        except grpc.RpcError as error:
            return error.code().name

    def steadily(rate):
        while running.is_set():
            counts[one()] += 1
            time.sleep(1 / rate)

    for line in sys.stdin:
        wanted = json.loads(line)
        if "call" in wanted:
            metadata = [*wanted.get("metadata", {}).items()]
            calls = pool.map(one, [metadata] * wanted["call"])
            answer(Counter(calls))
        elif "start" in wanted:
            running.set()
            load[:] = [threading.Thread(target=steadily, args=(wanted["start"] / 4,)) for _ in range(4)]
            for thread in load:
                thread.start()
            answer({})
        else:
            running.clear()
            for thread in load:
                thread.join()
            answer(counts)
            counts.clear()
    running.clear()
    channel.close()


if __name__ == "__main__":
    if sys.argv[1] == "backend":
        backend({version: int(port) for version, port in (each.split("=") for each in sys.argv[2:])})
    else:
        client(sys.argv[2])
