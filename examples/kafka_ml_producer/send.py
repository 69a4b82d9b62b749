"""A producer as Kafka-ML's users have them: confluent-kafka, and a control message in JSON. Nothing of Headrace.

    python send.py DEPLOYMENT [BOOTSTRAP_SERVERS]

It sends scikit-learn's irises: the value of a record is the flower (four float32), its key the class (int32).
"""

import json
import sys

from confluent_kafka import KafkaException, Message, Producer
from sklearn.datasets import load_iris

TOPIC = "iris"
CONTROL_TOPIC = "KAFKA_ML_CONTROL_TOPIC"


def main() -> None:
    deployment_id = int(sys.argv[1])
    bootstrap_servers = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:9092"
    iris = load_iris()
    producer = Producer({"bootstrap.servers": bootstrap_servers})

    offsets: list[int] = []

    def confirmed(error: object, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        offsets.append(message.offset() or 0)

    for flower, kind in zip(iris.data.astype("<f4"), iris.target.astype("<i4"), strict=True):
        producer.produce(TOPIC, key=kind.tobytes(), value=flower.tobytes(), partition=0, on_delivery=confirmed)
    producer.flush()

    control = {
        # topic:partition:first:end, where the end is the offset behind the last record.
        "topic": f"{TOPIC}:0:{min(offsets)}:{max(offsets) + 1}",
        "input_format": "RAW",
        "input_config": {"data_type": "float32", "label_type": "int32", "data_reshape": "4", "label_reshape": ""},
        "description": "irises",
        "dataset_restrictions": "{}",
        "validation_rate": 0.1,
        "test_rate": 0.2,
        "total_msg": len(offsets),
    }
    # The key is the deployment's id: one byte, as Kafka-ML's own sinks write it.
    producer.produce(CONTROL_TOPIC, key=bytes([deployment_id]), value=json.dumps(control).encode())
    producer.flush()
    print(f"Sent {len(offsets)} irises for deployment {deployment_id}.")


if __name__ == "__main__":
    main()
