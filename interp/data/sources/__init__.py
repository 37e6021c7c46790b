"""Sources of pictures: folders, lists, tables, data sets and shards."""
