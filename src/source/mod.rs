//! Git: list, fetch, check, walk, watch.
