"""Images and points: on disk, in memory, in batches, and in the range of the model."""
