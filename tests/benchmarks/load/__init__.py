"""The api under load: latencies, lists, metrics, charts and streams, on real servers (`make bench-api`)."""
