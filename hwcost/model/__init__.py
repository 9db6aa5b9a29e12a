"""The cost model: estimates of latency from a device's ceilings and what measurements taught."""
