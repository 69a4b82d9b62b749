"""Sends scikit-learn's wine data as JSON objects with 13 named numbers.

    python send.py DEPLOYMENT [BOOTSTRAP_SERVERS]

It needs scikit-learn and a Headrace installed without extras: a producer needs nothing else.
"""

import sys

from sklearn.datasets import load_wine

from sinks import JsonSink


def main() -> None:
    deployment_id = int(sys.argv[1])
    bootstrap_servers = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:9092"
    data = load_wine()

    with JsonSink(bootstrap_servers, "wine", deployment_id, validation_rate=0.1, test_rate=0.2) as sink:
        for row, label in zip(data.data.tolist(), data.target.tolist(), strict=True):
            sink.send(dict(zip(data.feature_names, row, strict=True)), label)
    print(f"Sent {len(data.target)} wines for deployment {deployment_id}.")


if __name__ == "__main__":
    main()
