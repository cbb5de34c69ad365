"""PyTorch's DataLoader over files. Arguments: paths_file (a path a line), format (npz or jpeg), collate (stack or
list), workers, batch_size, epochs.

With `list` the batch is a list of the arrays as the worker pickles them: no stacking, one copy through the pipe.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from window import arguments, measure_epochs, paths


class Files(Dataset):
    """A file a sample."""

    def __init__(self, files, load):
        self.files, self.load = files, load

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.load(self.files[index])


def load_npz(path):
    """Return the first array."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"]


def load_jpeg(path):
    """Return the decoded pixels."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def payload_of(batch):
    """Return a batch's bytes and samples."""
    if isinstance(batch, torch.Tensor):
        return batch.numel() * batch.element_size(), len(batch)
    return sum(array.nbytes for array in batch), len(batch)


def main():
    """Deliver one epoch unmeasured, in which the workers start, then those asked for."""
    asked = arguments()
    loader = DataLoader(
        Files(paths(asked), {"npz": load_npz, "jpeg": load_jpeg}[asked["format"]]),
        batch_size=asked["batch_size"],
        shuffle=True,
        num_workers=asked["workers"],
        persistent_workers=True,
        drop_last=True,
        collate_fn=list if asked["collate"] == "list" else None,
    )

    def epoch():
        payload_bytes = samples = 0
        for batch in loader:
            size_bytes, count = payload_of(batch)
            payload_bytes, samples = payload_bytes + size_bytes, samples + count
        return payload_bytes, samples

    measure_epochs(epoch, asked["epochs"])


if __name__ == "__main__":
    main()
