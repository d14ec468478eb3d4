"""What no policy can beat: violations, quality and worker-hours by linear programmes that relax the fleet.

The fixed fleet's programme: request i gets a share x_ik of variant k, of service time s_k and relative
quality q_ik, on a fleet that gives C(t) worker-seconds by time t:

    most of  sum x_ik, then of  sum q_ik x_ik
    sum_k x_ik <= 1,                     0 <= x
    sum over i..j of s_k x_ik  <=  C(d_j) - C(a_i) - idle(i, j)         for all i <= j

The last line is what fits between the first arrival and the last deadline of any run of requests; as
deadlines come in the order of arrivals it is all that a divisible fleet has to obey. `idle` is what workers
lose for want of requests at both ends of that window, as a worker runs one request at a time
(`fluid.releases_and_limits`).

So relaxed are: a request may be split over variants (the upper concave hull of its curve), over workers and
in time, and all arrivals are known from the start. Kept are every deadline, the capacity at every moment, and
whom to shed. Service times are their means: jitter is not for anyone to foresee. A request that is late
counts as a violation and adds no quality.

The informed bound knows of a request its class's mean curve only. It bounds what can be expected of a policy
that knows no more; one run's luck with the true curves (a standard error over the requests) comes on top, and
is alike for all policies.

Model families (`family`) and elastic fleets (`elastic`) are programmes over slots, for HiGHS.
"""

from .bound import Bound, bound
from .elastic import ElasticBound, best_quality_within, least_worker_hours
from .family import FamilyBound, least_violations_of_family
from .fixed import best_quality_at, least_violations
from .instance import BoundInstance, Elastic, Models, Workers

__all__ = [
    "Bound",
    "BoundInstance",
    "Elastic",
    "ElasticBound",
    "FamilyBound",
    "Models",
    "Workers",
    "best_quality_at",
    "best_quality_within",
    "bound",
    "least_violations",
    "least_violations_of_family",
    "least_worker_hours",
]
