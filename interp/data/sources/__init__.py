"""Pictures from folders, lists, tables, data sets and shards, read into one table of images."""
