"""The RPCs of WorkerService: one worker answers for itself."""

from faas.v1.worker_pb2 import DrainWorkerRequest, GetWorkerRequest, ResumeWorkerRequest, Worker
from faas.v1.worker_service_pb2 import ListExecutionsRequest, ListExecutionsResponse
from services.errors import WorkerNotFound
from services.server import Call
from services.worker.agent import Agent


class WorkerServicer:
    """faas.v1.WorkerService."""

    def __init__(self, agent: Agent) -> None:
        """Answer for `agent`."""
        self._agent = agent

    async def GetWorker(self, request: GetWorkerRequest, _call: Call) -> Worker:
        """The worker."""
        self._check(request.worker_id)
        return self._agent.describe()

    async def ListExecutions(
        self, _request: ListExecutionsRequest, _call: Call
    ) -> ListExecutionsResponse:
        """What it has in hands."""
        executions = [one.to_proto() for one in self._agent.executions()]
        return ListExecutionsResponse(executions=executions)

    async def DrainWorker(self, request: DrainWorkerRequest, _call: Call) -> Worker:
        """Take nothing new."""
        self._check(request.worker_id)
        self._agent.set_draining(True)
        return self._agent.describe()

    async def ResumeWorker(self, request: ResumeWorkerRequest, _call: Call) -> Worker:
        """Take work again."""
        self._check(request.worker_id)
        self._agent.set_draining(False)
        return self._agent.describe()

    def _check(self, worker_id: str) -> None:
        if worker_id not in ("", self._agent.worker_id):
            raise WorkerNotFound(f"This is {self._agent.worker_id}, not {worker_id}.")
