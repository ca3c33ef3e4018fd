"""The CPU engine: ONNX Runtime on the bundle's graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from tagger.errors import BundleError
from tagger.model.bundle import GRAPH, Bundle
from tagger.model.engine import Scores

MOST_PARALLEL = 8  # predictions at once; each holds the activations of a batch, so that more cores share them instead


class OnnxEngine:
    """Predicts batches of one fixed shape; smaller batches are padded, so that scores do not depend on their size.

    Several predictions run at once, each on one thread where there are few cores. Threads that share one prediction
    wait for each other after every layer; beside decoding they wait for one that was put aside, and spin meanwhile.
    """

    def __init__(self, bundle: Bundle, batch_size: int, threads: int) -> None:
        """
        Args:
            threads: CPU threads of all predictions together.

        Raises:
            BundleError: the bundle has no graph, or the graph does not load or is another network's.
        """
        graph = bundle.file(GRAPH)
        options = ort.SessionOptions()
        options.intra_op_num_threads = -(-threads // MOST_PARALLEL)
        self.parallel = threads // options.intra_op_num_threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            raise BundleError(f"the graph {graph} does not load: {' '.join(str(error).split())[:300]}") from None
        _check_graph(self._session, bundle, graph)
        self.schema = bundle.schema
        self.input_spec = bundle.input_spec
        self.device = f"cpu (onnxruntime {ort.__version__}, {threads} threads)"
        side = bundle.input_spec.size
        self._shape = (batch_size, side, side, 3)

    def predict(self, pixels: npt.NDArray[np.uint8]) -> Scores:
        """Scores of (n, size, size, 3) uint8 RGB, n up to the batch size."""
        n = len(pixels)
        if n > self._shape[0]:
            raise ValueError(f"{n} photos in a batch of {self._shape[0]}")
        if n < self._shape[0]:
            padded = np.zeros(self._shape, np.uint8)
            padded[:n] = pixels
            pixels = padded
        logits, embedding = self._session.run(["logits", "embedding"], {"pixels": pixels})
        return Scores(logits[:n], embedding[:n])

    def close(self) -> None:
        """Give the session's threads and memory back."""
        del self._session


def _check_graph(session: ort.InferenceSession, bundle: Bundle, graph: str) -> None:
    """A graph of another network would fail in the middle of a run, or give scores that mean something else."""
    side = bundle.input_spec.size
    expected = {
        "pixels": [side, side, 3],
        "logits": [bundle.schema.n_scores],
        "embedding": [bundle.network.features],
    }
    found = {node.name: node.shape[1:] for node in [*session.get_inputs(), *session.get_outputs()]}
    if found != expected:
        raise BundleError(f"the graph {graph} does not fit its bundle.json: it takes and gives {found}, not {expected}")
