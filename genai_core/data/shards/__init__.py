"""Tables on the disk: their columns, the shards that they are cut into, and which rows are held out."""
