"""What Leasegate costs, beside raw Vault calls on the same servers in the same run. Nothing may import this; it may import everything."""
