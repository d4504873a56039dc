"""Files of histories, ours and other people's.

    native      our own: length-prefixed msgpack records after a magic line; what `k2 check gen` writes
    edn         Clojure data, as Jepsen, Knossos and Elle write it: one map a line, or one vector of maps
    json_text   the same maps in JSON, as elle-cli reads it: one a line, or one array
    etcd_log    the log lines of Jepsen's etcd test
    quick       list-append histories straight into columns, for files of a million transactions

`load` looks at the first bytes, not at the name. What cannot be read raises `HistoryError` with a place. Nothing
in a file is ever executed, and no format here can hold anything but data.
"""

from jepsen_like.formats.load import load, load_transactions, sniff

__all__ = ["load", "load_transactions", "sniff"]
