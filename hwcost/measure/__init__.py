"""Measuring networks and their kernels on this machine, and the values and files that hold measurements.

Each of these words means one thing here:

run        one inference of a network.
profile    one inference in which the runtime reports the time of each kernel.
visit      one turn of a network: wait until the CPU is at full speed, warm up, time some runs and some profiles.
round      what one visit measured.
campaign   visits to many networks in turn, until each has as many rounds as were asked for. So the rounds of one
           network are spread over time, and slow changes of the machine affect all networks alike.
wave       the networks that a campaign holds in memory at the same time.
pace       how slow the CPU is at a moment: the time of a fixed piece of arithmetic over the lowest time that it takes
           on this machine. 1 is full speed; at 1.2 everything takes 20 % longer.
calm       of a run or profile: the pace right before and right after it was at most 1.05.
disturbed  of a visit: no run was calm, or other processes took more than 5 % of its time.
latency    of a network or kernel: a low quantile over its rounds, the time it takes when nothing else is in the way.
spread     the relative half-width of a 90 % interval of a latency.
drift      what the latencies of two campaigns differ by in addition to what the rounds of each one show.
"""
