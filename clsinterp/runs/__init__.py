"""The note as a resumable, shardable run folder."""
