"""`k2 demo`: people talk to a real model in three regions, and some of them travel.

A run starts a node, a router and a worker in each region, as processes that are as far apart as the real cities.
Workers are `k2 fleet worker`, routers `k2 fleet router`, people clients of the OpenAI API. They ask:

conversations  about a text, of several turns; in most of them the second turn is asked in another region. Whoever
               answers it there reads the keys and values of the first one from where it was
lookups        a question behind some texts, which others ask about, too

The texts are the reference of Python's language that comes with every Python. Answers are greedy, so each of them
can be compared with that of a worker which keeps nothing and asks nobody.

``plan``       what a run is to do
``talks``      what is asked, and where
``scene``      the processes, and what they are told
``people``     ask, and note what came
``counters``   what processes say of themselves
``lookout``    a learner in each region, for whoever watches
``conductor``  the run from beginning to end
``tokens``     what could have been found computed, and what was to be found elsewhere
``reference``  the same questions to a worker that keeps nothing
``findings``   figures of a run; ``telling``: for people; ``page``: as a file to look at
"""
