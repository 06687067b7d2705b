"""Kubernetes as any controller needs it: client, cache, informers, work queues, Events, conditions. Knows no kind of Leasegate's."""
