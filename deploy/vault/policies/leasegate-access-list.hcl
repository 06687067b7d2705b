# Part of leasegate-access where the operator grants it (--list-leases): lists leases, to find those that the ledger
# does not explain. Vault lists them for sudo only; with list alone beside it that is no more than the list.

path "sys/leases/lookup/<mount>/creds/*" {
  capabilities = ["list", "sudo"]
}
