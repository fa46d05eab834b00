"""TODO: what the task asks of a method, and by which protocol it is judged, in a few lines."""

from replications.tasks.base import Metric, Metrics, Task
from replications.tasks.new_task.options import Options

TASK = Task(
    name="new_task",
    title="New task",
    primary_metric="accuracy",
    metrics=Metrics({"accuracy": Metric("Accuracy", "%", True, "share of the test images whose class is right")}),
    options=Options,
)
