"""Sends scikit-learn's breast cancer data as Avro records, which have a field for each of 30 measurements.

    python send.py DEPLOYMENT [BOOTSTRAP_SERVERS]

It needs scikit-learn and a Headrace installed without extras: a producer needs nothing else.
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer

from sinks import AvroSink


def main() -> None:
    deployment_id = int(sys.argv[1])
    bootstrap_servers = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:9092"
    data = load_breast_cancer()
    # Avro's names have no blanks: mean_radius, mean_texture, …
    names = [name.replace(" ", "_") for name in data.feature_names]
    measurements = dict(zip(names, data.data.T, strict=True))
    labels = data.target.astype(np.int32)  # 0: malignant, 1: benign

    with AvroSink(bootstrap_servers, "breast-cancer", deployment_id, validation_rate=0.1, test_rate=0.2) as sink:
        # The schema follows from the arrays: 30 fields of the type double. A label is an int.
        sink.send_batch(measurements, labels)
    print(f"Sent {len(labels)} records for deployment {deployment_id}.")


if __name__ == "__main__":
    main()
