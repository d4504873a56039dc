"""`python -m jepsen_like.swarm`: a worker of a swarm, which is told seeds on its standard input."""

from jepsen_like.swarm.worker import main

main()
