"""Sends the handwritten digits of scikit-learn as the stream of a deployment.

    python send.py DEPLOYMENT [BOOTSTRAP_SERVERS]

It needs scikit-learn and a Headrace installed without extras: a producer needs nothing else.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

from sinks import RawSink


def main() -> None:
    deployment_id = int(sys.argv[1])
    bootstrap_servers = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:9092"
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int32)

    with RawSink(bootstrap_servers, "digits", deployment_id, validation_rate=0.1, test_rate=0.1) as sink:
        for image, label in zip(images, labels, strict=True):
            sink.send(image, label)
    # Leaving the block waits until Kafka has confirmed every record, and then announces the stream.
    print(f"Sent {len(images)} images for deployment {deployment_id}.")


if __name__ == "__main__":
    main()
