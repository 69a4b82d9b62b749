"""What a worker leaves out to be ready soon, and that the code of a model does not miss it."""

from sandbox.session import WorkerSession
from tests.frameworks.models import Models

CODE = """
import gc, sys
print("there:", *({"sklearn", "matplotlib"} & set(sys.modules)))
print("collecting:", gc.isenabled(), gc.get_freeze_count() > 100_000)
from sklearn.preprocessing import scale
from matplotlib import pyplot
print("there:", scale.__module__, pyplot.__name__)
"""


def test_a_worker_imports_what_it_needs_and_code_whatever_it_wants(worker: WorkerSession, models: Models) -> None:
    before = len(worker.output)
    assert worker.build("", CODE + models.classifier).signature.parameter_count == 67
    said = ["there:", "collecting: True True", "there: sklearn.preprocessing._data matplotlib.pyplot"]
    assert worker.output[before:].split("\n")[:3] == said
