"""Routing: where a prompt should run, decided from hints in microseconds.

::

    request ──▶ producers ──▶ facts ──▶ filters ──▶ scorers × weights ──▶ picker ──▶ decision
                (what is      per        (who may)   (who should)          (who does)
                 known)       worker

``facts``     what producers know of the workers: depths, loads, age of the knowledge, churn
``parts``     filters, scorers and pickers, each a small function under a name
``cost``      how long a prefill takes and how long bytes travel
``policies``  which parts make up which policy
``router``    puts a policy to work

A decision is a hint as everything that comes from a learner: blocks that matter are acquired afterwards.
"""
