"""Several Triton servers behind one name: engines spread over them, where gRPC's default would take the first."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.inference import _CHANNEL_OPTIONS

ENGINES = 20


class Counting(health_pb2_grpc.HealthServicer):
    """Counts the calls that reach it."""

    def __init__(self) -> None:
        self.calls = 0

    async def Check(self, request, context):  # noqa: ARG002, N802
        self.calls += 1
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


async def test_engines_spread_over_the_servers_behind_a_name() -> None:
    counters, servers, addresses = [Counting(), Counting()], [], []
    for counter in counters:
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(counter, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    options = [*_CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]  # each engine as in a process of its own
    for _ in range(ENGINES):
        async with grpc.aio.insecure_channel(f"ipv4:{','.join(addresses)}", options=options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest())
            await stub.Check(health_pb2.HealthCheckRequest())
    for server in servers:
        await server.stop(None)
    assert sum(counter.calls for counter in counters) == 2 * ENGINES
    assert all(counter.calls > 0 and counter.calls % 2 == 0 for counter in counters)  # and stay with the one they took
