"""DeploymentManager: what is wished for, and what runs. Each method is told by the part that it belongs to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import empty_pb2

from control_plane.deployments import Deployments
from control_plane.inferences import Inferences
from control_plane.kafka_clusters import KafkaClusters
from control_plane.logs import Logs
from headrace.v1 import deployment_manager_pb2 as pb
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerServicer
from headrace.v1.deployment_pb2 import Deployment, KafkaCluster
from headrace.v1.inference_pb2 import Inference


class DeploymentManager(DeploymentManagerServicer):
    def __init__(self, deployments: Deployments, inferences: Inferences, clusters: KafkaClusters, logs: Logs) -> None:
        self._deployments, self._inferences, self._clusters, self._logs = deployments, inferences, clusters, logs

    async def CreateDeployment(self, request: pb.CreateDeploymentRequest, context: Any) -> Deployment:
        return await self._deployments.create(request)

    async def GetDeployment(self, request: pb.GetDeploymentRequest, context: Any) -> Deployment:
        return await self._deployments.get(request.id)

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, context: Any) -> pb.ListDeploymentsResponse:
        return await self._deployments.page(request)

    async def DeleteDeployment(self, request: pb.DeleteDeploymentRequest, context: Any) -> empty_pb2.Empty:
        return await self._deployments.delete(request)

    async def CancelDeployment(self, request: pb.CancelDeploymentRequest, context: Any) -> Deployment:
        return await self._deployments.cancel(request.id)

    async def CreateInference(self, request: pb.CreateInferenceRequest, context: Any) -> Inference:
        return await self._inferences.create(request)

    async def GetInference(self, request: pb.GetInferenceRequest, context: Any) -> Inference:
        return await self._inferences.get(request.id)

    async def ListInferences(self, request: pb.ListInferencesRequest, context: Any) -> pb.ListInferencesResponse:
        return await self._inferences.page(request)

    async def UpdateInference(self, request: pb.UpdateInferenceRequest, context: Any) -> Inference:
        return await self._inferences.update(request)

    async def DeleteInference(self, request: pb.DeleteInferenceRequest, context: Any) -> empty_pb2.Empty:
        return await self._inferences.delete(request)

    async def StopInference(self, request: pb.StopInferenceRequest, context: Any) -> Inference:
        return await self._inferences.stop(request.id)

    async def CreateKafkaCluster(self, request: pb.CreateKafkaClusterRequest, context: Any) -> KafkaCluster:
        return await self._clusters.create(request)

    async def GetKafkaCluster(self, request: pb.GetKafkaClusterRequest, context: Any) -> KafkaCluster:
        return await self._clusters.get(request.id)

    async def ListKafkaClusters(
        self, request: pb.ListKafkaClustersRequest, context: Any
    ) -> pb.ListKafkaClustersResponse:
        return await self._clusters.page(request)

    async def DeleteKafkaCluster(self, request: pb.DeleteKafkaClusterRequest, context: Any) -> empty_pb2.Empty:
        return await self._clusters.delete(request.id)

    async def WatchLogs(self, request: pb.WatchLogsRequest, context: Any) -> AsyncIterator[pb.WatchLogsResponse]:
        async for response in self._logs.watch(request):
            yield response

    async def ReportReplica(self, request: pb.ReportReplicaRequest, context: Any) -> pb.ReportReplicaResponse:
        return await self._inferences.report(request)
