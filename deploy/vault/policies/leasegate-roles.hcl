# The role service: database roles, and nothing else. One set of the rules that name a mount is made for
# each.

# Reads the owners of the mount.
path "sys/mounts/<mount>" {
  capabilities = ["read"]
}

# Database roles, the cleanup roles included.
path "<mount>/roles/*" {
  capabilities = ["create", "read", "update", "delete"]
}

# Renews and revokes its session.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
