"""Sends scikit-learn's diabetes data as protobuf messages with ten fields; the label is a number, not a class.

    python send.py DEPLOYMENT [BOOTSTRAP_SERVERS]

It needs scikit-learn and a Headrace installed without extras: a producer needs nothing else.
"""

import sys

import numpy as np
from sklearn.datasets import load_diabetes

from sinks import ProtobufSink


def main() -> None:
    deployment_id = int(sys.argv[1])
    bootstrap_servers = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:9092"
    data = load_diabetes(scaled=False)
    measurements = dict(zip(data.feature_names, data.data.T.astype(np.float32), strict=True))
    progression = data.target.astype(np.float32)  # one year after the measurements

    with ProtobufSink(bootstrap_servers, "diabetes", deployment_id, validation_rate=0.1, test_rate=0.2) as sink:
        # The message type follows from the arrays: ten fields of the type float.
        sink.send_batch(measurements, progression)
    print(f"Sent {len(progression)} patients for deployment {deployment_id}.")


if __name__ == "__main__":
    main()
