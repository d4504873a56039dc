"""Explanations that people can read, and a second opinion on them.

verify   proves every edge of a cycle again from the raw operations; shares nothing with the checkers
page     one self-contained HTML page: the findings in words, and the operations on a time line
"""
