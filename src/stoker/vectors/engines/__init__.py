"""The databases that hold collections, each behind `stoker.vectors.engine.VectorEngine`."""
