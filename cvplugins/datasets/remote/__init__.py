"""Data sets that are downloaded: where they are, how they get here whole, and how one knows that they are right."""
