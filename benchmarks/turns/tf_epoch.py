"""tf.data over TFRecord files, as DLIO's native reader arranges it. Arguments: paths_file, batch_size, workers, epochs.

The records are parsed to strings; DLIO would decode them to numbers, too. Their CRC is checked by tf.data.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from window import arguments, measure_epochs, paths


def main():
    """Deliver the epochs asked for."""
    asked = arguments()
    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset(paths(asked), buffer_size=1 << 20, num_parallel_reads=asked["workers"])
    batches = records.batch(asked["batch_size"], drop_remainder=True)
    parsed = batches.map(lambda batch: tf.io.parse_example(batch, features), num_parallel_calls=asked["workers"])
    ready = parsed.prefetch(2)

    def epoch():
        total = count = 0
        for batch in ready:
            lengths = tf.strings.length(batch["image"])
            total, count = total + int(tf.reduce_sum(lengths)), count + int(lengths.shape[0])
        return total, count

    measure_epochs(epoch, asked["epochs"])


if __name__ == "__main__":
    main()
