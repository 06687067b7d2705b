"""What any Kubernetes controller needs: client, cache, informers, work queues, Events, conditions."""
