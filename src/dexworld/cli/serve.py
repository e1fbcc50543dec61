"""The verb `serve`: a policy behind a websocket."""

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.serving.policy_service import PolicyConfig, PolicyService
from dexworld.serving.serve_config import ServerConfig


@dataclass(frozen=True)
class Serve:
    """Serve a policy to robots: openpi's protocol, observations in and action chunks out.

    Runs until it is stopped. /healthz, /version, /latency and /metrics answer on the same port.
    """

    policy: Annotated[PolicyConfig, tyro.conf.arg(name="")] = field(default_factory=PolicyConfig)
    device: str = "auto"
    """Where the models run: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`."""
    server: Annotated[ServerConfig, tyro.conf.arg(name="")] = field(default_factory=ServerConfig)

    dexjoco_goal: Path | None = None
    """Picture of the goal for DexJoCo's evaluator, which sends none: the server then speaks its observations and
    actions (docs/dexjoco.md)."""

    def run(self) -> None:
        """Serve."""
        from dexworld.serving.socket_server import Service, SocketServer
        from dexworld.training.distributed import local_device

        policies = PolicyService(self.policy, local_device(self.device))
        service: Service = policies
        if self.dexjoco_goal is not None:
            from dexworld.serving.dexjoco_clients import DexJoCoClients

            service = DexJoCoClients(policies, self.dexjoco_goal)
        gc.freeze()  # so that no collection looks through models and libraries while an answer is due
        try:
            with SocketServer(self.server, service, "policy") as server:
                server.wait()
        finally:
            policies.close()
