"""K2store: a strictly serializable, multi-version, multi-region metadata store."""
