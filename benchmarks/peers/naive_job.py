"""The loop that everybody starts with: poll one, `model.predict`, produce, flush."""

import json

import keras
import numpy as np
from confluent_kafka import Consumer, Producer

from benchmarks.peers.answering import SHAPE, Job, tell_start


def main() -> None:
    """Until it is killed."""
    job = Job.told()
    model = keras.models.load_model(job.model)
    model.predict(np.zeros((1, *SHAPE), np.uint8), verbose=0)
    kafka = {"bootstrap.servers": job.bootstrap}
    consumer = Consumer({**kafka, "group.id": job.target, "auto.offset.reset": "earliest"})
    producer = Producer(kafka)
    consumer.subscribe([job.source])
    has_begun = False
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        if not has_begun:
            has_begun = True
            tell_start()
        picture = np.frombuffer(message.value() or b"", np.uint8).reshape(1, *SHAPE)
        values = model.predict(picture, verbose=0)[0]
        producer.produce(job.target, json.dumps({"values": values.tolist()}), message.key())
        producer.flush()


if __name__ == "__main__":
    main()
