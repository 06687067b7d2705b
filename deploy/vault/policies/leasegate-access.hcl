# The access service: tokens for attempts, and the leases that came of them. One set of the rules that name a mount is
# made for each. It reads no credential itself: the tokens that it makes do (leasegate-issuer).

# Makes the orphan token of an attempt; the token role limits what that token may do.
path "auth/token/create/leasegate" {
  capabilities = ["update"]
}

# Revokes the token of an attempt by its accessor.
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# Renews and revokes leases, in the form that names the lease in the URL: the form that names it in the body cannot be
# limited to a mount.
path "sys/leases/renew/<mount>/creds/*" {
  capabilities = ["update"]
}

path "sys/leases/revoke/<mount>/creds/*" {
  capabilities = ["update"]
}

# Removes one lease whose revocation statements fail, once its database user is dropped otherwise. Vault asks for sudo.
path "sys/leases/revoke-force/<mount>/creds/+/+" {
  capabilities = ["update", "sudo"]
}

# Renews and revokes its session.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
