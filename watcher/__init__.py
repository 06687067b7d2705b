"""The watcher: forwards what Kubernetes says to the three services and writes back what they answer. It decides nothing.

It alone speaks to Kubernetes, and never to Vault. Level-triggered: an event only names an object, a worker reads its newest state and
sends it whole. Of ``services`` it may import ``services.common.{errors,names,durations,logs,config,metrics,rpc}`` alone.
"""
