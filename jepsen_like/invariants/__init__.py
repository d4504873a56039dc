"""Checkers of one promise each: fast, and plain about what they prove.

    bank            reads of all accounts see money neither made nor lost
    counter         a read lies between what was surely added and what may have been added
    sets            set: nothing acknowledged is missing from the last read; set-full: nor from any later one
    queue           what is dequeued was enqueued, once; what was enqueued comes out before the queue is drained
    long_fork       two readers agree on which of two inserts came first
    causal_reverse  who sees a write sees what was finished before it began
    watch           events arrive in order, whole, without gaps, once
    lease           one holder at a time; fencing tokens only grow
    kv_directory    copies of KV blocks: what is handed out is there, what is claimed stays, nothing is lost or leaked

Each takes the operations of a history and gives a verdict with the anomalies in their own words.
"""
