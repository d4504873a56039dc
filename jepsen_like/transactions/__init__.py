"""Transactional consistency from dependency cycles (Adya 1999; Kingsbury and Alvaro, "Elle", VLDB 2020).

columns, list_append   lists: the version order is read off, on columns for millions of transactions
register               registers: the version order is inferred, source by source
graph, cycles          dependencies in arrays; one cycle of each telling kind
models, judge          which anomaly rules out which model; the verdict
single, reasons        what one transaction contradicts alone; edges in words
replay                 the white-box check by commit timestamp, in addition
"""
